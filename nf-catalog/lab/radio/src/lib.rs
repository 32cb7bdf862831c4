//! What an eNB and an MME of the lab say to each other: a line of JSON a message. It stands in the place of S1AP with NAS in it, and is
//! neither; the README says what of TS 36.413 and TS 24.301 each message stands for.

mod attached;
mod bytes;

use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use attached::{Attached, NotAttached, read_attached, write_attached};
pub use bytes::Bytes;

/// Longest line that is taken, in bytes.
pub const MAX_LINE_BYTES: usize = 1024;

/// An end of a tunnel of S1-U.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Where.
    pub address: Ipv4Addr,
    /// Its name there.
    pub teid: u32,
}

/// A device's message, or its eNB's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Up {
    /// It wants to be attached.
    Attach {
        /// Who.
        imsi: String,
    },
    /// The answer to a challenge.
    Response {
        /// Who.
        imsi: String,
        /// RES.
        res: Bytes<8>,
    },
    /// The network is not authentic, or its number not fresh.
    Failure {
        /// Who.
        imsi: String,
        /// For the latter.
        auts: Option<Bytes<14>>,
    },
    /// The device has what it was given, and this is the eNB's end.
    Ready {
        /// Who.
        imsi: String,
        /// That end.
        tunnel: Tunnel,
    },
    /// It goes.
    Detach {
        /// Who.
        imsi: String,
    },
    /// It went, as it was told.
    Detached {
        /// Who.
        imsi: String,
    },
    /// It is idle.
    Release {
        /// Who.
        imsi: String,
    },
    /// It is no longer idle, and this is the eNB's end.
    Service {
        /// Who.
        imsi: String,
        /// That end.
        tunnel: Tunnel,
    },
}

/// The MME's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Down {
    /// Show that you know the key.
    Challenge {
        /// Who.
        imsi: String,
        /// RAND.
        rand: Bytes<16>,
        /// AUTN.
        autn: Bytes<16>,
    },
    /// A session is there.
    Setup {
        /// Whose.
        imsi: String,
        /// The device's address.
        address: Ipv4Addr,
        /// The SGW's end.
        tunnel: Tunnel,
    },
    /// Packets may go: after an attach, or after having been idle.
    Accepted {
        /// Who.
        imsi: String,
    },
    /// What was asked is not done.
    Rejected {
        /// Who.
        imsi: String,
        /// Why, in one word.
        cause: String,
    },
    /// It is gone, as it wanted.
    Detached {
        /// Who.
        imsi: String,
    },
    /// It is idle, as it wanted.
    Released {
        /// Who.
        imsi: String,
    },
    /// Packets wait for it.
    Page {
        /// Who.
        imsi: String,
    },
    /// It must go.
    Detach {
        /// Who.
        imsi: String,
        /// And come again.
        reattach: bool,
    },
}

impl Up {
    /// Whom it is about.
    pub fn imsi(&self) -> &str {
        match self {
            Self::Attach { imsi }
            | Self::Response { imsi, .. }
            | Self::Failure { imsi, .. }
            | Self::Ready { imsi, .. }
            | Self::Detach { imsi }
            | Self::Detached { imsi }
            | Self::Release { imsi }
            | Self::Service { imsi, .. } => imsi,
        }
    }
}

impl Down {
    /// Whom it is about.
    pub fn imsi(&self) -> &str {
        match self {
            Self::Challenge { imsi, .. }
            | Self::Setup { imsi, .. }
            | Self::Accepted { imsi }
            | Self::Rejected { imsi, .. }
            | Self::Detached { imsi }
            | Self::Released { imsi }
            | Self::Page { imsi }
            | Self::Detach { imsi, .. } => imsi,
        }
    }
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
#[error("a line of the radio side is no message")]
pub struct Malformed(#[source] serde_json::Error);

/// A message as a line, with its end.
pub fn line<T: Serialize>(message: &T) -> String {
    let mut line =
        serde_json::to_string(message).expect("messages have neither maps nor anything that fails");
    line.push('\n');
    line
}

/// The message of a line.
pub fn read<T: DeserializeOwned>(line: &str) -> Result<T, Malformed> {
    serde_json::from_str(line).map_err(Malformed)
}

/// Whether a text is an IMSI: 6 to 15 digits (TS 23.003, 2.2).
pub fn is_imsi(text: &str) -> bool {
    (6..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_lines_of_json() {
        let imsi = "001010000000001".to_owned();
        let tunnel = Tunnel {
            address: Ipv4Addr::new(10, 0, 0, 4),
            teid: 9,
        };
        let ready = Up::Ready {
            imsi: imsi.clone(),
            tunnel,
        };
        let expected =
            r#"{"type":"ready","imsi":"001010000000001","tunnel":{"address":"10.0.0.4","teid":9}}"#;
        assert_eq!(line(&ready), format!("{expected}\n"));
        assert_eq!(read::<Up>(expected).unwrap(), ready);
        let failure = Up::Failure {
            imsi,
            auts: Some(Bytes([0xab; 14])),
        };
        let text = line(&failure);
        assert!(text.contains(&"ab".repeat(14)), "{text}");
        assert_eq!(read::<Up>(&text).unwrap(), failure);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for wrong in [
            "",
            "{}",
            r#"{"type":"attach"}"#,
            r#"{"type":"attach","imsi":"1","more":1}"#,
            r#"{"type":"response","imsi":"1","res":"00"}"#,
        ] {
            assert!(read::<Up>(wrong).is_err(), "{wrong}");
        }
        assert!(is_imsi("001010000000001") && !is_imsi("00101000000000a") && !is_imsi("1"));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(text in ".{0,200}") {
            let _ = read::<Up>(&text);
            let _ = read::<Down>(&text);
        }
    }
}
