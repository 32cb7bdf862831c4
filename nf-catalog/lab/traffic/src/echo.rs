//! Sends every datagram back to where it came from (as RFC 862 does).

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long it sleeps at most before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);
/// Longest datagram.
const BYTES: usize = 65_536;

/// What happened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Datagrams that came.
    pub received: AtomicU64,
    /// Datagrams that went back.
    pub sent: AtomicU64,
    /// Bytes that came.
    pub bytes: AtomicU64,
}

/// Until `stop`.
pub fn run(socket: &UdpSocket, counts: &Counts, stop: &CancellationToken) -> io::Result<()> {
    socket.set_read_timeout(Some(LOOK))?;
    let mut buffer = vec![0; BYTES];
    while !stop.is_cancelled() {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => continue,
                // An earlier answer found nobody.
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable => continue,
                _ => return Err(error),
            },
        };
        counts.received.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if socket.send_to(&buffer[..length], from).is_ok() {
            counts.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
