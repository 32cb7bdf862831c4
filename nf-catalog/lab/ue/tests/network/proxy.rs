//! The network's SIP and the way of audio. It keeps no transactions: who misses an answer asks again.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_lab_aka::{Key, Sqn};

use super::Sent;

/// See the module.
pub struct Proxy {
    keys: HashMap<String, Key>,
    sqn: Sqn,
    /// Contacts by user.
    contacts: HashMap<String, String>,
    relay: SocketAddrV4,
    /// Where the caller of a call takes audio, by Call-ID.
    offers: HashMap<String, SocketAddrV4>,
    /// Whose audio goes to whom.
    ways: HashMap<SocketAddrV4, SocketAddrV4>,
}

impl Proxy {
    /// Nobody is registered.
    pub fn new(keys: HashMap<String, Key>, relay: SocketAddrV4) -> Self {
        Self {
            keys,
            sqn: Sqn::new(32),
            contacts: HashMap::new(),
            relay,
            offers: HashMap::new(),
            ways: HashMap::new(),
        }
    }

    /// Audio of a device.
    pub fn relay(&self, from: SocketAddrV4, datagram: &[u8]) -> Vec<Sent> {
        let to = self.ways.get(&from);
        to.map(|to| (*to, datagram.to_vec())).into_iter().collect()
    }

    /// SIP of a device.
    pub fn take(&mut self, from: SocketAddrV4, datagram: &[u8]) -> Vec<Sent> {
        let text = std::str::from_utf8(datagram).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let method = head.split(' ').next().unwrap();
        match method {
            "SIP/2.0" if value(head, "CSeq").ends_with("NOTIFY") => vec![],
            "SIP/2.0" => vec![self.back(head, body)],
            "REGISTER" => vec![(from, self.register(head).into_bytes())],
            "SUBSCRIBE" => vec![
                (from, answer(head, "200 OK", "").into_bytes()),
                (from, self.notify(head).into_bytes()),
            ],
            _ => self.on(head, body).into_iter().collect(),
        }
    }

    fn register(&mut self, head: &str) -> String {
        let user = between(value(head, "To"), "sip:", "@").to_owned();
        let contact = between(value(head, "Contact"), "<", ">").to_owned();
        if value(head, "Authorization").contains("nonce=\"\"") {
            self.sqn = self.sqn.next();
            let vector = self.keys[&user].vector([9; 16], self.sqn);
            let nonce = STANDARD.encode([vector.rand, vector.autn].concat());
            let challenge = format!(
                "WWW-Authenticate: Digest realm=\"ims.lab\", nonce=\"{nonce}\", algorithm=AKAv1-MD5\r\n"
            );
            return answer(head, "401 Unauthorized", &challenge);
        }
        let stands = format!("Contact: <{contact}>;expires=60\r\nService-Route: <sip:scscf.ims.lab;lr>\r\n");
        self.contacts.insert(user, contact);
        answer(head, "200 OK", &stands)
    }

    /// What follows a subscription at once.
    fn notify(&self, subscribe: &str) -> String {
        let contact = between(value(subscribe, "Contact"), "<", ">");
        let call_id = value(subscribe, "Call-ID");
        let body = "<reginfo><registration state=\"active\"/></reginfo>";
        format!(
            "NOTIFY {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{call_id}\r\nFrom: {};tag=n\r\nTo: {}\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 NOTIFY\r\nContent-Length: {}\r\n\r\n{body}",
            self.relay.ip(),
            value(subscribe, "To"),
            value(subscribe, "From"),
            body.len()
        )
    }

    /// A request to the other device: by its contact, or as its dialog has it.
    fn on(&mut self, head: &str, body: &str) -> Option<Sent> {
        let (first, rest) = head.split_once("\r\n")?;
        let (method, uri) = first.split_once(' ')?;
        let uri = uri.strip_suffix(" SIP/2.0")?;
        let begins = !value(head, "To").contains(";tag=");
        let (target, added) = match begins {
            true => (
                self.contacts.get(between(uri, "sip:", "@"))?.clone(),
                format!(
                    "Record-Route: <sip:{};lr>\r\nP-Asserted-Identity: <{}>\r\n",
                    self.relay.ip(),
                    between(value(head, "From"), "<", ">")
                ),
            ),
            false => (uri.to_owned(), String::new()),
        };
        let kept: String = lines(rest, |name| name != "Route" && name != "Content-Length");
        let branch = between(value(head, "Via"), "branch=", "\r");
        let via = format!("Via: SIP/2.0/UDP {};branch={branch}-p\r\n", self.relay.ip());
        let body = self.session(value(head, "Call-ID"), body, true);
        let message = format!(
            "{method} {target} SIP/2.0\r\n{via}{kept}{added}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let to = target.split_once('@')?.1.parse().ok()?;
        Some((to, message.into_bytes()))
    }

    /// A response to whom the second Via names.
    fn back(&mut self, head: &str, body: &str) -> Sent {
        let (own, rest) = (head.find("Via:").unwrap(), &head[head.find("Via:").unwrap()..]);
        let (_, rest) = rest.split_once("\r\n").unwrap();
        let to = between(value(rest, "Via"), "UDP ", ";").parse().unwrap();
        let body = self.session(value(head, "Call-ID"), body, false);
        let kept = lines(rest, |name| name != "Content-Length");
        let message = format!(
            "{}{kept}Content-Length: {}\r\n\r\n{body}",
            &head[..own],
            body.len()
        );
        (to, message.into_bytes())
    }

    /// Audio goes by way of the relay.
    fn session(&mut self, call_id: &str, body: &str, is_offer: bool) -> String {
        if !body.starts_with("v=0") {
            return body.to_owned();
        }
        let address = between(body, "c=IN IP4 ", "\r\n");
        let port = between(body, "m=audio ", " ");
        let own: SocketAddrV4 = format!("{address}:{port}").parse().unwrap();
        if is_offer {
            self.offers.insert(call_id.to_owned(), own);
        } else if let Some(other) = self.offers.get(call_id) {
            self.ways.insert(own, *other);
            self.ways.insert(*other, own);
        }
        let (ip, relay) = (self.relay.ip().to_string(), self.relay.port().to_string());
        body.replace(address, &ip)
            .replace(&format!("audio {port}"), &format!("audio {relay}"))
    }
}

/// The lines of these names.
fn lines(head: &str, keep: impl Fn(&str) -> bool) -> String {
    let kept = head
        .split("\r\n")
        .filter(|line| keep(line.split(':').next().unwrap_or_default()));
    kept.map(|line| format!("{line}\r\n")).collect()
}

fn answer(head: &str, status: &str, more: &str) -> String {
    let given_back = lines(head, |name| {
        ["Via", "From", "To", "Call-ID", "CSeq"].contains(&name)
    });
    let given_back = given_back.replacen("\r\nCall-ID", ";tag=n\r\nCall-ID", 1);
    format!("SIP/2.0 {status}\r\n{given_back}{more}Content-Length: 0\r\n\r\n")
}

fn value<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.split("\r\n").find_map(|line| {
        let (own, value) = line.split_once(": ")?;
        (own == name).then_some(value)
    });
    line.unwrap_or_default()
}

/// What is behind `start`, up to `end` or the end.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or(("", text));
    rest.split_once(end).map_or(rest, |(found, _)| found)
}
