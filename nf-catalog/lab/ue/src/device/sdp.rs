//! Session descriptions (RFC 8866) as a device offers and reads them: one stream of audio, PCMU.

use std::net::SocketAddrV4;

/// Which way the audio goes, as the offerer says it (RFC 3264, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    SendRecv,
    /// The other end is on hold.
    SendOnly,
    /// This end is.
    RecvOnly,
}

impl Direction {
    fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
        }
    }

    /// What the other end answers.
    pub fn answer(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
        }
    }
}

/// An offer or an answer. `version` counts the changes of a session.
pub fn write(at: SocketAddrV4, version: u32, direction: Direction) -> Vec<u8> {
    let (address, port, direction) = (at.ip(), at.port(), direction.attribute());
    let lines = [
        "v=0".to_owned(),
        format!("o=- 1 {version} IN IP4 {address}"),
        "s=-".to_owned(),
        format!("c=IN IP4 {address}"),
        "t=0 0".to_owned(),
        format!("m=audio {port} RTP/AVP 0"),
        "a=rtpmap:0 PCMU/8000".to_owned(),
        "a=ptime:20".to_owned(),
        format!("a={direction}"),
    ];
    lines.map(|line| line + "\r\n").concat().into_bytes()
}

/// Where the other end takes audio, and which way it goes; `None` if there is no audio.
pub fn read(body: &[u8]) -> Option<(SocketAddrV4, Direction)> {
    let text = std::str::from_utf8(body).ok()?;
    let (mut address, mut port, mut direction) = (None, None, Direction::SendRecv);
    for line in text.lines().map(str::trim_end) {
        if let Some(value) = line.strip_prefix("c=IN IP4 ") {
            address = value.parse().ok();
        } else if let Some(value) = line.strip_prefix("m=audio ") {
            port = value.split(' ').next()?.parse().ok().filter(|port| *port != 0);
        } else {
            direction = match line {
                "a=sendonly" => Direction::SendOnly,
                "a=recvonly" => Direction::RecvOnly,
                _ => direction,
            };
        }
    }
    Some((SocketAddrV4::new(address?, port?), direction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let at = "10.0.0.1:40000".parse().unwrap();
        for direction in [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly] {
            assert_eq!(read(&write(at, 1, direction)), Some((at, direction)));
        }
        assert_eq!(read(b"v=0\r\nm=audio 0 RTP/AVP 0\r\nc=IN IP4 10.0.0.1\r\n"), None);
        assert_eq!(read(b"v=0\r\n"), None);
    }
}
