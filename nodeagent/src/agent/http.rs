//! Just enough HTTP/1.1 for probes, hooks and metrics: one GET, one bounded answer, whose every byte is looked at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A status line and a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// How much of an answer is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Bytes, header and body together.
    pub(super) bytes: usize,
    /// A longer body is cut off. If not, it is an error, as a longer header always is.
    pub(super) cut: bool,
}

/// Sends a GET and reads the answer. What takes longer is an error.
pub(super) async fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    bound: Bound,
    timeout: Duration,
) -> io::Result<Answer> {
    match tokio::time::timeout(timeout, exchange(address, path, headers, bound)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", timeout.as_millis()),
        )),
    }
}

async fn exchange(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    bound: Bound,
) -> io::Result<Answer> {
    let request = request(address, path, headers)?;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut reader = Reader::default();
    loop {
        if reader.look()? {
            return reader.answer();
        }
        if reader.bytes.len() > bound.bytes {
            return match reader.head {
                Some(_) if bound.cut => reader.answer(),
                Some(_) => Err(bad("the answer is too long")),
                None => Err(bad("the header is too long")),
            };
        }
        if stream.read_buf(&mut reader.bytes).await? == 0 {
            return reader.end();
        }
    }
}

/// What is sent. Of the headers that every request has, those that are given take the place of the usual ones, as in Kubernetes: also
/// `Host`, and an empty `Accept` is none.
fn request(address: SocketAddr, path: &str, headers: &[(String, String)]) -> io::Result<String> {
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(bad("the path holds blanks or control characters"));
    }
    let mut lines = String::new();
    for (name, value) in headers {
        let is_value = !value.bytes().any(|b| b.is_ascii_control() && b != b'\t');
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') || !is_value {
            return Err(bad("a header holds control characters"));
        }
        if !(name.eq_ignore_ascii_case("accept") && value.is_empty()) {
            lines += &format!("{name}: {value}\r\n");
        }
    }
    let address = address.to_string();
    for (name, usual) in [
        ("Host", address.as_str()),
        ("User-Agent", "gantry"),
        ("Accept", "*/*"),
    ] {
        if !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
            lines += &format!("{name}: {usual}\r\n");
        }
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!(
        "GET {slash}{path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
    ))
}

/// How the end of a body is known (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug)]
enum Length {
    Known(usize),
    Chunked,
    ToTheEnd,
}

/// Takes an answer in piece by piece.
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
    /// What was looked at.
    seen: usize,
    head: Option<(u16, Length)>,
    body: Vec<u8>,
}

impl Reader {
    /// Looks at what is new; true if the answer is complete.
    fn look(&mut self) -> io::Result<bool> {
        if self.head.is_none() {
            let from = self.seen.saturating_sub(3);
            let Some(end) = find(&self.bytes[from..], b"\r\n\r\n") else {
                self.seen = self.bytes.len();
                return Ok(false);
            };
            self.head = Some(head(&self.bytes[..from + end])?);
            self.seen = from + end + 4;
        }
        match self.head {
            Some((_, Length::Chunked)) => self.unchunk(),
            Some((_, length)) => {
                self.body.extend_from_slice(&self.bytes[self.seen..]);
                self.seen = self.bytes.len();
                let Length::Known(length) = length else {
                    return Ok(false);
                };
                let complete = self.body.len() >= length;
                self.body.truncate(length);
                Ok(complete)
            }
            None => Ok(false),
        }
    }

    /// RFC 9112, 7.1: whole chunks only.
    fn unchunk(&mut self) -> io::Result<bool> {
        loop {
            let rest = &self.bytes[self.seen..];
            let Some(end) = find(
                rest.get(..rest.len().min(CHUNK_LINE_BYTES)).unwrap_or(rest),
                b"\r\n",
            ) else {
                return match rest.len() < CHUNK_LINE_BYTES {
                    true => Ok(false),
                    false => Err(bad("that is no chunk")),
                };
            };
            let line = std::str::from_utf8(&rest[..end]).ok();
            let size = line.and_then(|line| u32::from_str_radix(line.split(';').next()?.trim(), 16).ok());
            let size = size.ok_or_else(|| bad("that is no chunk"))? as usize;
            if size == 0 {
                return Ok(true);
            }
            let begin = end + 2;
            if rest.len() < begin + size + 2 {
                return Ok(false);
            }
            self.body.extend_from_slice(&rest[begin..begin + size]);
            self.seen += begin + size + 2;
        }
    }

    /// No more comes.
    fn end(self) -> io::Result<Answer> {
        match self.head {
            Some((_, Length::ToTheEnd)) => self.answer(),
            _ => Err(bad("the answer ends too early")),
        }
    }

    fn answer(self) -> io::Result<Answer> {
        let (status, _) = self.head.ok_or_else(|| bad("the answer has no header"))?;
        Ok(Answer {
            status,
            body: self.body,
        })
    }
}

/// Longest line before a chunk, in bytes.
const CHUNK_LINE_BYTES: usize = 256;

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

fn head(bytes: &[u8]) -> io::Result<(u16, Length)> {
    let head = std::str::from_utf8(bytes).map_err(|_| bad("the header is no text"))?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| bad("that is no HTTP"))?;
    let mut length = Length::ToTheEnd;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match (name.to_ascii_lowercase().as_str(), length) {
            ("transfer-encoding", _) if value.eq_ignore_ascii_case("chunked") => length = Length::Chunked,
            ("content-length", Length::ToTheEnd) => {
                length = value.parse().map_or(Length::ToTheEnd, Length::Known);
            }
            _ => {}
        }
    }
    Ok((status, length))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What is understood when it comes in pieces of this size.
    fn whole(text: &str, ended: bool, piece: usize) -> Option<(u16, String)> {
        let mut reader = Reader::default();
        let mut complete = false;
        for part in text.as_bytes().chunks(piece) {
            reader.bytes.extend_from_slice(part);
            complete = reader.look().unwrap();
        }
        let answer = if complete {
            reader.answer().unwrap()
        } else if ended {
            reader.end().unwrap()
        } else {
            return None;
        };
        Some((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn reads_all_kinds_of_bodies_in_pieces_of_any_size() {
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd";
        let chunks = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
        let open = "HTTP/1.0 200 OK\r\n\r\nab";
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(whole(long, false, piece), Some((200, "abc".to_owned())));
            assert_eq!(whole(chunks, false, piece), Some((503, "abc".to_owned())));
            assert_eq!(whole(open, false, piece), None);
            assert_eq!(whole(open, true, piece), Some((200, "ab".to_owned())));
        }
        for end in 0..chunks.len() - 4 {
            assert_eq!(whole(&chunks[..end], false, 1000), None, "{end}");
        }
        let mut other = Reader {
            bytes: b"SSH-2.0-x\r\n\r\n".to_vec(),
            ..Reader::default()
        };
        assert!(other.look().is_err());
    }

    #[test]
    fn given_headers_take_the_place_of_the_usual_ones() {
        let address = "10.1.2.3:80".parse().unwrap();
        let sent = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect();
            request(address, "x?y", &headers)
        };
        assert_eq!(
            sent(&[]).unwrap(),
            "GET /x?y HTTP/1.1\r\nHost: 10.1.2.3:80\r\nUser-Agent: gantry\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            sent(&[("host", "a.example"), ("X", "1"), ("X", "2"), ("accept", "")]).unwrap(),
            "GET /x?y HTTP/1.1\r\nhost: a.example\r\nX: 1\r\nX: 2\r\nUser-Agent: gantry\r\nConnection: close\r\n\r\n"
        );
        assert!(sent(&[("X", "1\r\nY: 2")]).is_err() && sent(&[("X:\n", "")]).is_err());
    }

    /// A server that answers with this, and then with this for ever.
    async fn server(head: &'static str, then: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut sent = client.write_all(head.as_bytes()).await;
                while sent.is_ok() {
                    sent = client.write_all(then.as_bytes()).await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn what_never_ends_is_cut_off_or_refused() {
        let ok = "HTTP/1.1 200 OK\r\n\r\n";
        let bound = |cut| Bound { bytes: 100_000, cut };
        let ask = async |head, then, cut| {
            let address = server(head, then).await;
            get(address, "/", &[], bound(cut), Duration::from_secs(20)).await
        };
        let cut = ask(ok, "x", true).await.unwrap();
        assert!(cut.status == 200 && cut.body.len() <= 300_000);
        let refused = ask(ok, "x", false).await.unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
        let header = ask("HTTP/1.1 200 OK\r\n", "a: b\r\n", true).await.unwrap_err();
        assert!(header.to_string().contains("header is too long"), "{header}");
    }
}
