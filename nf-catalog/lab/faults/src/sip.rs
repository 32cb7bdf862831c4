//! SIP as far as a fault looks into it (RFC 3261, 7): the first line, and header lines that are written anew.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const VERSION: &str = "SIP/2.0";
const END: &[u8] = b"\r\n\r\n";
/// Where in RAND and AUTN the last byte of AUTN is, which is its MAC's (RFC 3310, 3.2; TS 33.102, 6.3.2).
const LAST_OF_AUTN: usize = 31;
/// As a challenge between the proxies of the network has them (TS 24.229, 5.4.1.2.1). They are nobody's.
const KEYS: &str = ", ck=\"00112233445566778899aabbccddeeff\", ik=\"ffeeddccbbaa99887766554433221100\"";

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Sip<'a> {
    /// First line and headers.
    head: &'a str,
    /// From the empty line on.
    rest: &'a [u8],
}

impl<'a> Sip<'a> {
    /// From a datagram; `None` if it is something else.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let end = payload.windows(END.len()).position(|four| four == END)?;
        let (head, rest) = payload.split_at(end);
        let head = std::str::from_utf8(head).ok()?;
        let first = head.lines().next()?;
        (first.starts_with(VERSION) || first.ends_with(VERSION)).then_some(Self { head, rest })
    }

    /// Method of a request, `None` for a response.
    pub fn method(&self) -> Option<&'a str> {
        let (method, _) = self.head.split_once(' ')?;
        (method != VERSION).then_some(method)
    }

    /// Whether it is this answer to a request of this method.
    pub fn answers(&self, code: &str, method: &str) -> bool {
        let mut words = self.head.split_ascii_whitespace();
        let is_code = words.next() == Some(VERSION) && words.next() == Some(code);
        is_code && self.value("CSeq").is_some_and(|value| value.ends_with(method))
    }

    /// Whether it begins a dialog: the other end has no tag yet (RFC 3261, 12.1.2).
    pub fn begins_dialog(&self) -> bool {
        self.value("To").is_some_and(|to| !to.contains(";tag="))
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// With another value in each line of this name; `None` if `change` changes none.
    fn with(&self, name: &str, change: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
        let mut changed = false;
        let lines = self.head.split("\r\n").map(|line| {
            let named = line.split_once(':');
            let named = named.filter(|(own, _)| own.trim().eq_ignore_ascii_case(name));
            let other = named.and_then(|(own, value)| Some(format!("{own}: {}", change(value.trim())?)));
            changed |= other.is_some();
            other.unwrap_or_else(|| line.to_owned())
        });
        let head = lines.collect::<Vec<_>>().join("\r\n");
        changed.then(|| [head.as_bytes(), self.rest].concat())
    }

    /// Each contact is another user's: its last digit is the next one.
    pub fn with_another_contact(&self) -> Option<Vec<u8>> {
        self.with("Contact", |value| {
            let parts: Vec<&str> = value.split('@').collect();
            let (last, users) = parts.split_last()?;
            let others = users.iter().map(|user| {
                let digit = user.chars().next_back()?.to_digit(10)?;
                Some(format!("{}{}@", &user[..user.len() - 1], (digit + 1) % 10))
            });
            let others: String = others.collect::<Option<_>>()?;
            (!others.is_empty()).then(|| others + last)
        })
    }

    /// A challenge with CK and IK.
    pub fn with_keys(&self) -> Option<Vec<u8>> {
        self.with("WWW-Authenticate", |value| Some(format!("{value}{KEYS}")))
    }

    /// A challenge whose AUTN has a bit turned.
    pub fn with_wrong_autn(&self) -> Option<Vec<u8>> {
        const NONCE: &str = "nonce=\"";
        self.with("WWW-Authenticate", |value| {
            let start = value.find(NONCE)? + NONCE.len();
            let end = start + value[start..].find('"')?;
            let mut nonce = STANDARD.decode(&value[start..end]).ok()?;
            *nonce.get_mut(LAST_OF_AUTN)? ^= 1;
            let nonce = STANDARD.encode(nonce);
            Some(format!("{}{nonce}{}", &value[..start], &value[end..]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"SIP/2.0 200 OK\r\nTo: <sip:a@b>;tag=1\r\nCSeq: 2 REGISTER\r\n\
        contact: <sip:001010000000009@10.45.0.2:5060>;expires=60, <sip:1@b>\r\nContent-Length: 2\r\n\r\nhi";

    fn changed(bytes: Option<Vec<u8>>) -> String {
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[test]
    fn a_message_is_known_by_its_first_line() {
        let ok = Sip::read(OK).unwrap();
        assert!(ok.answers("200", "REGISTER") && !ok.answers("200", "BYE") && !ok.answers("401", "REGISTER"));
        assert_eq!((ok.method(), ok.begins_dialog()), (None, false));
        let bye = Sip::read(b"BYE sip:a SIP/2.0\r\nTo: <sip:a@b>\r\nCSeq: 1 BYE\r\n\r\n").unwrap();
        assert_eq!((bye.method(), bye.begins_dialog()), (Some("BYE"), true));
        assert!(Sip::read(b"\x80\0\0\x01\r\n\r\n").is_none());
        assert!(Sip::read(b"SIP/2.0 200 OK\r\n").is_none());
    }

    #[test]
    fn contacts_become_anothers_and_nothing_else_changes() {
        let text = changed(Sip::read(OK).unwrap().with_another_contact());
        let expected = String::from_utf8(OK.to_vec()).unwrap();
        let expected = expected.replace("0009@", "0000@").replace("sip:1@b", "sip:2@b");
        assert_eq!(text, expected);
        let none = Sip::read(b"SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\nContact: *\r\n\r\n").unwrap();
        assert_eq!(none.with_another_contact(), None);
    }

    #[test]
    fn a_challenge_shows_keys_or_has_another_autn() {
        let nonce = STANDARD.encode([7; 32]);
        let text = format!(
            "SIP/2.0 401 Unauthorized\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: Digest nonce=\"{nonce}\", \
             algorithm=AKAv1-MD5\r\n\r\n"
        );
        let challenge = Sip::read(text.as_bytes()).unwrap();
        assert!(changed(challenge.with_keys()).contains("AKAv1-MD5, ck=\"00112233"));
        let wrong = changed(challenge.with_wrong_autn());
        let other = STANDARD.encode([[7; 31].as_slice(), &[6]].concat());
        assert_eq!(wrong, text.replace(&nonce, &other));
        let short = text.replace(&nonce, "AAAA");
        assert_eq!(Sip::read(short.as_bytes()).unwrap().with_wrong_autn(), None);
    }
}
