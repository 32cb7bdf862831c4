//! A user's profile as an S-CSCF gets it (TS 29.228, Annex B and E): identities, and which requests go to which application server.

use std::fmt::{self, Write};

/// An application server for what its users send, calls and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationServer {
    /// SIP URI.
    pub uri: String,
}

/// The XML of `User-Data`.
pub fn xml(private: &str, public: &[String], server: Option<&ApplicationServer>) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><IMSSubscription>");
    write(&mut text, private, public, server).expect("a String takes everything");
    text.push_str("</IMSSubscription>");
    text
}

fn write(
    text: &mut String,
    private: &str,
    public: &[String],
    server: Option<&ApplicationServer>,
) -> fmt::Result {
    write!(
        text,
        "<PrivateID>{}</PrivateID><ServiceProfile>",
        Escaped(private)
    )?;
    for identity in public {
        write!(
            text,
            "<PublicIdentity><Identity>{}</Identity></PublicIdentity>",
            Escaped(identity)
        )?;
    }
    if let Some(server) = server {
        text.push_str("<InitialFilterCriteria><Priority>0</Priority>");
        // All groups must hold, one condition of each is enough.
        text.push_str("<TriggerPoint><ConditionTypeCNF>1</ConditionTypeCNF>");
        for (group, condition) in [
            (0, "<Method>INVITE</Method>"),
            (0, "<Method>MESSAGE</Method>"),
            (1, "<SessionCase>0</SessionCase>"),
        ] {
            write!(
                text,
                "<SPT><ConditionNegated>0</ConditionNegated><Group>{group}</Group>{condition}</SPT>"
            )?;
        }
        text.push_str("</TriggerPoint><ApplicationServer>");
        // 0: without it the session goes on.
        write!(
            text,
            "<ServerName>{}</ServerName><DefaultHandling>0</DefaultHandling>",
            Escaped(&server.uri)
        )?;
        text.push_str("</ApplicationServer></InitialFilterCriteria>");
    }
    text.push_str("</ServiceProfile>");
    Ok(())
}

/// As XML text.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '&' => f.write_str("&amp;"),
                '"' => f.write_str("&quot;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_its_identities_and_its_server() {
        let public = ["sip:a@ims.lab".to_owned(), "tel:+1".to_owned()];
        let server = ApplicationServer {
            uri: "sip:as.lab:5060;lr&x".to_owned(),
        };
        let text = xml("a@ims.lab", &public, Some(&server));
        assert!(text.contains("<PrivateID>a@ims.lab</PrivateID>"));
        assert_eq!(text.matches("<PublicIdentity>").count(), 2);
        assert!(text.contains("<ServerName>sip:as.lab:5060;lr&amp;x</ServerName>"));
        assert!(!xml("a@ims.lab", &public, None).contains("InitialFilterCriteria"));
    }
}
