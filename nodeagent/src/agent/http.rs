//! Just enough HTTP/1.1 for probes and metrics: one GET, one bounded answer.

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

/// Sends a GET and reads the answer, at most `limit` bytes of it; what is longer is an error, as is what takes longer.
pub(super) async fn get(
    address: SocketAddr,
    path: &str,
    limit: usize,
    timeout: Duration,
) -> io::Result<Answer> {
    match tokio::time::timeout(timeout, exchange(address, path, limit)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", timeout.as_millis()),
        )),
    }
}

async fn exchange(address: SocketAddr, path: &str, limit: usize) -> io::Result<Answer> {
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(bad("the path holds blanks or control characters"));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: gantry\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bytes.len() > limit {
            return Err(bad("the answer is too long"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return parse(&bytes, true)?.ok_or_else(|| bad("the answer ends too early"));
        }
    }
}

/// The answer, if all of it is there.
fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let Some(split) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..split]).map_err(|_| bad("the header is no text"))?;
    let body = &bytes[split + 4..];
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| bad("that is no HTTP"))?;
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse::<usize>().ok(),
            ("transfer-encoding", value) => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let body = match length {
        _ if chunked => unchunk(body)?,
        Some(length) => body.get(..length).map(<[u8]>::to_vec),
        None => ended.then(|| body.to_vec()),
    };
    Ok(body.map(|body| Answer { status, body }))
}

/// RFC 9112, 7.1.
fn unchunk(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|line| line.split(';').next());
        let size = size
            .and_then(|s| u32::from_str_radix(s.trim(), 16).ok())
            .ok_or_else(|| bad("that is no chunk"))?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(Some(body));
        }
        let size = size as usize;
        let Some(chunk) = rest.get(..size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        let Some(after) = rest.get(size + 2..) else {
            return Ok(None);
        };
        rest = after;
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, ended: bool) -> Option<(u16, String)> {
        let answer = parse(text.as_bytes(), ended).unwrap()?;
        Some((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn reads_all_kinds_of_bodies() {
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd";
        assert_eq!(whole(long, false), Some((200, "abc".to_owned())));
        let chunks = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
        assert_eq!(whole(chunks, false), Some((503, "abc".to_owned())));
        let open = "HTTP/1.0 200 OK\r\n\r\nab";
        assert_eq!(whole(open, false), None);
        assert_eq!(whole(open, true), Some((200, "ab".to_owned())));
        for end in 0..chunks.len() - 2 {
            assert_eq!(whole(&chunks[..end], false), None, "{end}");
        }
        assert!(parse(b"SSH-2.0-x\r\n\r\n", true).is_err());
    }
}
