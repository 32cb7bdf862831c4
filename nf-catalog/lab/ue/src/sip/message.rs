//! Messages (RFC 3261, 7): read strictly, for whoever reads them is a judge, and written as they were read.

use std::fmt::{self, Write};

use super::value;

/// Longest message that is taken, in bytes: the largest datagram.
pub const MAX_BYTES: usize = 65_535;
/// Most header lines.
const MAX_HEADERS: usize = 256;
const VERSION: &str = "SIP/2.0";

/// Compact names (RFC 3261, 7.3.3 and 20; RFC 6665).
const COMPACT: [(&str, &str); 10] = [
    ("c", "Content-Type"),
    ("f", "From"),
    ("i", "Call-ID"),
    ("k", "Supported"),
    ("l", "Content-Length"),
    ("m", "Contact"),
    ("o", "Event"),
    ("s", "Subject"),
    ("t", "To"),
    ("v", "Via"),
];

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A request.
    Request {
        /// Method.
        method: String,
        /// Request-URI.
        uri: String,
    },
    /// A response.
    Response {
        /// Status-Code.
        code: u16,
        /// Reason-Phrase.
        reason: String,
    },
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: Start,
    /// In the order of the wire.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

/// Header lines, in order. Names have no case; compact ones are written out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// What is no SIP message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No empty line, or nothing at all.
    #[error("the message has no end of headers")]
    NoEnd,
    /// Headers are text.
    #[error("the headers are no UTF-8")]
    NotText,
    /// Neither a request nor a response.
    #[error("`{0}` is neither a request line nor a status line")]
    Start(String),
    /// A line without a colon, or a continuation of nothing.
    #[error("`{0}` is no header")]
    Header(String),
    /// More than anybody needs.
    #[error("the message has more than {MAX_HEADERS} headers")]
    TooMany,
    /// The body is shorter or longer than it is said to be.
    #[error("Content-Length is `{said}`, and the body has {bytes} bytes")]
    Length {
        /// What the header says.
        said: String,
        /// What is there.
        bytes: usize,
    },
}

impl Headers {
    /// Appends a line.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// The value of the first line of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines(name).next()
    }

    /// All values of this name, those between commas apart.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let values = self.lines(name).flat_map(|line| value::split(line, ','));
        values.map(str::trim).filter(|value| !value.is_empty()).collect()
    }

    /// The values of the lines of this name as they are.
    pub fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let own = self
            .0
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.as_str())
    }

    /// All lines.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Message {
    /// A request without headers.
    pub fn request(method: &str, uri: &str) -> Self {
        let start = Start::Request {
            method: method.to_owned(),
            uri: uri.to_owned(),
        };
        Self {
            start,
            headers: Headers::default(),
            body: Vec::new(),
        }
    }

    /// A response to this request: with what it must give back (8.2.6.2), and a tag for a dialog.
    pub fn respond(&self, code: u16, reason: &str, tag: &str) -> Self {
        let start = Start::Response {
            code,
            reason: reason.to_owned(),
        };
        let mut headers = Headers::default();
        for (name, value) in self.headers.iter() {
            let given_back = ["Via", "From", "Call-ID", "CSeq", "Record-Route"];
            if given_back.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                headers.push(name, value);
            } else if name.eq_ignore_ascii_case("To") {
                let known = value::NameAddr::parse(value).is_some_and(|to| !to.tag().is_empty());
                let own = if known || code == 100 {
                    String::new()
                } else {
                    format!(";tag={tag}")
                };
                headers.push(name, format!("{value}{own}"));
            }
        }
        Self {
            start,
            headers,
            body: Vec::new(),
        }
    }

    /// The method of a request, or of the request that a response answers.
    pub fn method(&self) -> &str {
        match &self.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => self.cseq().map_or("", |(_, method)| method),
        }
    }

    /// The code of a response.
    #[cfg(test)]
    pub fn code(&self) -> Option<u16> {
        match self.start {
            Start::Response { code, .. } => Some(code),
            Start::Request { .. } => None,
        }
    }

    /// Number and method.
    pub fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.headers.get("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method.trim()))
    }

    /// `branch` of the topmost Via.
    pub fn branch(&self) -> Option<&str> {
        value::param(self.headers.list("Via").first()?, "branch")
    }

    /// As on the wire. Content-Length is the body's, and comes last.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        self.write(&mut text).expect("a String takes everything");
        let mut bytes = text.into_bytes();
        bytes.extend(&self.body);
        bytes
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        match &self.start {
            Start::Request { method, uri } => write!(text, "{method} {uri} {VERSION}\r\n"),
            Start::Response { code, reason } => write!(text, "{VERSION} {code} {reason}\r\n"),
        }?;
        let own = |name: &str| !name.eq_ignore_ascii_case("Content-Length");
        for (name, value) in self.headers.iter().filter(|(name, _)| own(name)) {
            write!(text, "{name}: {value}\r\n")?;
        }
        write!(text, "Content-Length: {}\r\n\r\n", self.body.len())
    }

    /// A datagram: all of it is one message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or(Malformed::NoEnd)?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed::NotText)?;
        let body = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let start = start(lines.next().unwrap_or_default())?;
        let headers = headers(lines)?;
        if let Some(said) = headers.get("Content-Length")
            && said.parse() != Ok(body.len())
        {
            return Err(Malformed::Length {
                said: said.to_owned(),
                bytes: body.len(),
            });
        }
        Ok(Self {
            start,
            headers,
            body: body.to_vec(),
        })
    }
}

fn start(line: &str) -> Result<Start, Malformed> {
    let wrong = || Malformed::Start(line.chars().take(80).collect());
    let mut words = line.splitn(3, ' ');
    let (Some(first), Some(second), third) = (words.next(), words.next(), words.next()) else {
        return Err(wrong());
    };
    if first == VERSION {
        let code = second
            .parse()
            .ok()
            .filter(|code| (100..700).contains(code))
            .ok_or_else(wrong)?;
        let reason = third.unwrap_or_default().to_owned();
        return Ok(Start::Response { code, reason });
    }
    let is_method = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_uppercase());
    if third != Some(VERSION) || !is_method || second.is_empty() {
        return Err(wrong());
    }
    Ok(Start::Request {
        method: first.to_owned(),
        uri: second.to_owned(),
    })
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Headers, Malformed> {
    let mut headers = Headers::default();
    for line in lines {
        let wrong = || Malformed::Header(line.chars().take(80).collect());
        if line.starts_with([' ', '\t']) {
            let (_, value) = headers.0.last_mut().ok_or_else(wrong)?;
            value.push(' ');
            value.push_str(line.trim());
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(wrong());
        }
        if headers.0.len() == MAX_HEADERS {
            return Err(Malformed::TooMany);
        }
        let long = COMPACT.iter().find(|(short, _)| name.eq_ignore_ascii_case(short));
        headers.push(long.map_or(name, |(_, long)| long), value.trim());
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INVITE: &str = "INVITE tel:+1 SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2\r\n\
        Via: SIP/2.0/UDP c\r\nf: <sip:a@b>;tag=1\r\nTo: <tel:+1>\r\nCall-ID: x\r\nCSeq: 7 INVITE\r\n\
        Subject: one\r\n two\r\nRecord-Route: <sip:p;lr>\r\nl: 2\r\n\r\nhi";

    #[test]
    fn a_message_is_read_with_all_its_lists() {
        let message = Message::parse(INVITE.as_bytes()).unwrap();
        assert_eq!(
            (message.method(), message.cseq()),
            ("INVITE", Some((7, "INVITE")))
        );
        assert_eq!(message.headers.list("via").len(), 3);
        assert_eq!(message.branch(), Some("z9hG4bK1"));
        assert_eq!(message.headers.get("subject"), Some("one two"));
        assert_eq!(message.body, b"hi");
        assert_eq!(
            Message::parse(&message.encode())
                .unwrap()
                .headers
                .list("Via")
                .len(),
            3
        );
    }

    #[test]
    fn a_response_gives_back_what_it_must() {
        let request = Message::parse(INVITE.as_bytes()).unwrap();
        let response = request.respond(200, "OK", "t");
        assert_eq!(response.headers.get("To"), Some("<tel:+1>;tag=t"));
        assert_eq!(response.headers.lines("Via").count(), 2);
        assert_eq!(response.headers.get("Record-Route"), Some("<sip:p;lr>"));
        assert_eq!((response.code(), response.method()), (Some(200), "INVITE"));
        assert_eq!(
            request.respond(100, "Trying", "t").headers.get("To"),
            Some("<tel:+1>")
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let parse = |text: &str| Message::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse("INVITE"), Malformed::NoEnd);
        assert!(matches!(
            parse("invite tel:+1 SIP/2.0\r\n\r\n"),
            Malformed::Start(_)
        ));
        assert!(matches!(parse("SIP/2.0 99 No\r\n\r\n"), Malformed::Start(_)));
        assert!(matches!(
            parse("INVITE tel:+1 SIP/2.0\r\nnothing\r\n\r\n"),
            Malformed::Header(_)
        ));
        let short = INVITE.replace("l: 2", "l: 3");
        assert!(matches!(parse(&short), Malformed::Length { bytes: 2, .. }));
        let many = format!("INVITE tel:+1 SIP/2.0\r\n{}\r\n", "A: b\r\n".repeat(257));
        assert_eq!(parse(&many), Malformed::TooMany);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::parse(&bytes);
        }

        #[test]
        fn a_message_with_a_byte_changed_is_read_or_refused(at in 0..INVITE.len(), byte: u8) {
            let mut bytes = INVITE.as_bytes().to_vec();
            bytes[at] = byte;
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert!(Message::parse(&message.encode()).is_ok());
            }
        }
    }
}
