//! What a subscriber is called in IMS (TS 23.003, 13.3 and 13.4): one private identity, and public ones that are registered together.

use std::collections::HashMap;

use gantry_lab_aka::Subscriber;

/// Place of a subscriber in the file.
pub type Nth = usize;

/// All subscribers, and who is meant by what.
pub struct Users {
    domain: String,
    list: Vec<Subscriber>,
    by_name: HashMap<String, Nth>,
}

impl Users {
    /// Those of the file, in an IMS domain.
    pub fn new(list: Vec<Subscriber>, domain: &str) -> Self {
        let mut users = Self {
            domain: domain.to_owned(),
            list,
            by_name: HashMap::new(),
        };
        for nth in 0..users.list.len() {
            users.by_name.insert(users.private(nth), nth);
            users.by_name.insert(users.list[nth].imsi.clone(), nth);
            for identity in users.public(nth) {
                users.by_name.insert(identity, nth);
            }
        }
        users
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The subscriber.
    pub fn get(&self, nth: Nth) -> &Subscriber {
        &self.list[nth]
    }

    /// Whose private identity or IMSI it is.
    pub fn by_private(&self, name: &str) -> Option<Nth> {
        self.by_name.get(name).copied()
    }

    /// Whose public identity it is. Parameters of the URI, and a port, do not count.
    pub fn by_public(&self, uri: &str) -> Option<Nth> {
        let bare = uri.split([';', '?']).next().unwrap_or(uri);
        let without_port = match bare.rsplit_once(':') {
            Some((start, port)) if start.contains('@') && port.bytes().all(|b| b.is_ascii_digit()) => start,
            _ => bare,
        };
        self.by_name.get(without_port).copied()
    }

    /// Private identity: `<imsi>@<domain>`.
    pub fn private(&self, nth: Nth) -> String {
        format!("{}@{}", self.list[nth].imsi, self.domain)
    }

    /// Public identities, the default one first: by IMSI, by number, and as a telephone number.
    pub fn public(&self, nth: Nth) -> [String; 3] {
        let (Subscriber { imsi, msisdn, .. }, domain) = (&self.list[nth], &self.domain);
        [
            format!("sip:{imsi}@{domain}"),
            format!("sip:+{msisdn}@{domain}"),
            format!("tel:+{msisdn}"),
        ]
    }
}

#[cfg(test)]
pub mod tests {
    use gantry_lab_aka::Key;

    use super::*;

    /// Two of them, in `ims.lab`.
    pub fn two() -> Users {
        let one = |last: u8| Subscriber {
            imsi: format!("00101000000000{last}"),
            msisdn: format!("4900{last}"),
            key: Key::new([last; 16], [0; 16]),
        };
        Users::new(vec![one(1), one(2)], "ims.lab")
    }

    #[test]
    fn everybody_is_found_by_all_names() {
        let users = two();
        assert_eq!(users.by_private("001010000000002@ims.lab"), Some(1));
        assert_eq!(users.by_private("001010000000001"), Some(0), "of S6a");
        for name in [
            "sip:001010000000001@ims.lab",
            "sip:+49001@ims.lab;user=phone",
            "sip:+49001@ims.lab:5060",
            "tel:+49001",
        ] {
            assert_eq!(users.by_public(name), Some(0), "{name}");
        }
        assert_eq!(users.by_public("sip:nobody@ims.lab"), None);
    }
}
