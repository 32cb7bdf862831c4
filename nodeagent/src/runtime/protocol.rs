//! What goes over a pod's socket: one JSON object a line. A request has one reply; after `Subscribe` only events follow.

use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ContainerStart, ContainerState, ShimStatus};

/// The longest line accepted, a bound on memory: a pod's whole configuration has less, and no byte takes more than six in JSON.
const MAX_LINE_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub(crate) enum Request {
    Start(Box<ContainerStart>),
    Signal { name: String, signal: i32 },
    Status,
    Subscribe,
    Shutdown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reply")]
pub(crate) enum Reply {
    Done,
    Container(ContainerState),
    Status(ShimStatus),
    Error { message: String },
}

/// Reads one message; `None` at the end of the stream.
pub(crate) fn read_line<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    io::Read::take(from, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "message without an end",
        ));
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::from)
}

/// Writes one message.
pub(crate) fn write_line(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newer agent may say more to a shim that was started by an older one.
    #[test]
    fn what_is_not_known_is_passed_over() {
        let start = serde_json::json!({
            "op": "start", "name": "web", "attempt": 0, "rootfs": "/r", "netns": null, "hostname": "h", "argv": ["a"],
            "env": [], "cwd": "", "user": {"uid": 0, "gid": 0, "additionalGids": [], "umask": 0}, "mounts": [],
            "security": {"user": null, "group": null, "capabilities": [], "privileged": false, "readOnlyRoot": false},
            "cgroup": "/c", "logPath": "/l", "logMaxBytes": 1, "notYetInvented": {"a": 1}
        });
        let line = format!("{start}\n");
        let request = read_line(&mut line.as_bytes()).unwrap();
        assert!(matches!(request, Some(Request::Start(start)) if start.name == "web"));
    }
}
