//! Digest AKAv1-MD5 (RFC 3310 over RFC 2617): the challenge is RAND and AUTN, the password is RES.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use crate::{Auts, Key, NotAuthentic, Seen};

/// What a 401 asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Whose users.
    pub realm: String,
    /// RAND and AUTN in base64, perhaps with more behind them.
    pub nonce: String,
    /// The algorithm as it is written there.
    pub algorithm: String,
    /// Whether `auth` is offered.
    pub qop_auth: bool,
    /// To be given back.
    pub opaque: String,
    /// CK or IK stand there, which are for the network only.
    pub shows_keys: bool,
}

/// Who answers, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Private identity (IMPI).
    pub username: &'a str,
    /// Request-URI.
    pub uri: &'a str,
    /// Method.
    pub method: &'a str,
    /// Value that the client chooses.
    pub cnonce: &'a str,
    /// How often this challenge was answered, this time included.
    pub count: u32,
}

impl Challenge {
    /// From the value of a `WWW-Authenticate` header; `None` if it is no challenge of AKA.
    pub fn parse(header: &str) -> Option<Self> {
        let parameters = header.trim().strip_prefix("Digest")?;
        let mut challenge = Self::default();
        for (name, value) in parameters_of(parameters) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value,
                "nonce" => challenge.nonce = value,
                "algorithm" => challenge.algorithm = value,
                "opaque" => challenge.opaque = value,
                "ck" | "ik" => challenge.shows_keys = true,
                "qop" => challenge.qop_auth = value.split(',').any(|qop| qop.trim() == "auth"),
                _ => {}
            }
        }
        let is_aka = challenge.algorithm.eq_ignore_ascii_case("AKAv1-MD5");
        (is_aka && challenge.rand_and_autn().is_some()).then_some(challenge)
    }

    /// RAND and AUTN.
    pub fn rand_and_autn(&self) -> Option<([u8; 16], [u8; 16])> {
        let bytes = STANDARD.decode(&self.nonce).ok()?;
        let (rand, rest) = bytes.split_first_chunk::<16>()?;
        let (autn, _) = rest.split_first_chunk::<16>()?;
        Some((*rand, *autn))
    }

    /// The value of an `Authorization` header: the answer, or where the number is not fresh what sets it right (RFC 3310, 3.4).
    pub fn answer(&self, key: &Key, seen: &mut Seen, who: Credentials<'_>) -> Result<String, NotAuthentic> {
        let (rand, autn) = self.rand_and_autn().ok_or(NotAuthentic::Mac)?;
        match key.answer(&rand, &autn, seen) {
            Ok(answer) => Ok(self.header(&who, &answer.res, None)),
            Err(NotAuthentic::Sync(auts)) => Ok(self.header(&who, b"", Some(&auts))),
            Err(why) => Err(why),
        }
    }

    fn header(&self, who: &Credentials<'_>, password: &[u8], auts: Option<&Auts>) -> String {
        let response = self.response(who, password);
        let mut text = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\", algorithm={}",
            who.username, self.realm, self.nonce, who.uri, self.algorithm
        );
        let written = (|| {
            if self.qop_auth {
                write!(
                    text,
                    ", qop=auth, nc={:08x}, cnonce=\"{}\"",
                    who.count, who.cnonce
                )?;
            }
            if !self.opaque.is_empty() {
                write!(text, ", opaque=\"{}\"", self.opaque)?;
            }
            match auts {
                Some(auts) => write!(text, ", auts=\"{}\"", STANDARD.encode(auts)),
                None => Ok(()),
            }
        })();
        written.expect("a String takes everything");
        text
    }

    /// RFC 2617, 3.2.2.
    fn response(&self, who: &Credentials<'_>, password: &[u8]) -> String {
        let a1 = [
            who.username.as_bytes(),
            b":",
            self.realm.as_bytes(),
            b":",
            password,
        ]
        .concat();
        let a2 = format!("{}:{}", who.method, who.uri);
        let (ha1, ha2) = (md5(&a1), md5(a2.as_bytes()));
        let middle = match self.qop_auth {
            true => format!(":{:08x}:{}:auth", who.count, who.cnonce),
            false => String::new(),
        };
        md5(format!("{ha1}:{}{middle}:{ha2}", self.nonce).as_bytes())
    }
}

fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

/// `name=value` and `name="value"` between commas.
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        list.push((name, value.trim().to_owned()));
        rest = left;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sqn;

    fn who<'a>() -> Credentials<'a> {
        Credentials {
            username: "Mufasa",
            uri: "/dir/index.html",
            method: "GET",
            cnonce: "0a4f113b",
            count: 1,
        }
    }

    #[test]
    fn the_response_is_the_one_of_the_rfc() {
        let challenge = Challenge {
            realm: "testrealm@host.com".to_owned(),
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093".to_owned(),
            qop_auth: true,
            ..Challenge::default()
        };
        let response = challenge.response(&who(), b"Circle Of Life");
        assert_eq!(response, "6629fae49393a05397450978507c4ef1", "RFC 2617, 3.5");
    }

    #[test]
    fn a_challenge_is_read_and_answered() {
        let key = Key::new([1; 16], [2; 16]);
        let vector = key.vector([3; 16], Sqn::new(64));
        let nonce = STANDARD.encode([vector.rand, vector.autn].concat());
        let header = format!(
            "Digest realm=\"ims.lab\", nonce=\"{nonce}\", qop=\"auth,auth-int\", opaque=\"o,p\", algorithm=AKAv1-MD5"
        );
        let challenge = Challenge::parse(&header).expect("a challenge");
        assert_eq!(
            (challenge.realm.as_str(), challenge.opaque.as_str()),
            ("ims.lab", "o,p")
        );
        let mut seen = Seen::default();
        let answer = challenge.answer(&key, &mut seen, who()).expect("an answer");
        let expected = challenge.response(&who(), &vector.xres);
        assert!(answer.contains(&format!("response=\"{expected}\"")), "{answer}");
        assert!(answer.contains("qop=auth, nc=00000001") && !answer.contains("auts"));
        let again = challenge
            .answer(&key, &mut seen, who())
            .expect("a word on the number");
        assert!(again.contains("auts=\""), "{again}");
    }

    #[test]
    fn keys_are_seen_by_their_names_and_not_within_a_nonce() {
        // The base64 of these bytes ends in `ik=`.
        let nonce = format!("{}ik=", "A".repeat(41));
        let header = |more: &str| format!("Digest realm=\"r\", nonce=\"{nonce}\", algorithm=AKAv1-MD5{more}");
        let shows = |more: &str| Challenge::parse(&header(more)).map(|c| c.shows_keys);
        assert_eq!(shows(""), Some(false));
        assert_eq!(shows(", ck=\"00\""), Some(true));
        assert_eq!(shows(",ik=\"00\""), Some(true));
    }

    #[test]
    fn what_is_no_challenge_of_aka_is_none() {
        assert_eq!(
            Challenge::parse("Digest realm=\"a\", nonce=\"QUJD\", algorithm=MD5"),
            None
        );
        assert_eq!(
            Challenge::parse("Digest realm=\"a\", nonce=\"QUJD\", algorithm=AKAv1-MD5"),
            None,
            "too short"
        );
        assert_eq!(Challenge::parse("Basic realm=\"a\""), None);
    }
}
