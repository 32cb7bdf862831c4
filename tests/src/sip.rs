//! One SIP request, as a stranger would send it.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// How long one answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);
/// Answers in a row from which on a service counts as back: with one dead instance of two, one in a thousand is luck.
const IN_A_ROW: u32 = 10;

/// An OPTIONS (RFC 3261, 11) from a port of its own; whether a 200 comes back soon.
pub fn answers(vip: &str) -> io::Result<bool> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
    socket.connect((vip, 5060))?;
    let local = socket.local_addr()?;
    let request = format!(
        "OPTIONS sip:test@{vip}:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bK{port}\r\n\
         From: <sip:t@{local}>;tag=1\r\nTo: <sip:test@{vip}>\r\nCall-ID: {port}@t\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        port = local.port()
    );
    let mut answer = [0; 4096];
    // An error is what a dead instance's host answers (ICMP), and a time-out.
    let length = socket
        .send(request.as_bytes())
        .and_then(|_| socket.recv(&mut answer))
        .unwrap_or(0);
    Ok(answer[..length].starts_with(b"SIP/2.0 200"))
}

/// How long until a service answers: when the first of some answers in a row came, each to a source of its own, since some
/// sources would go to a dead instance. `None` if it stays away.
pub fn back_after(vip: &str, patience: Duration) -> io::Result<Option<Duration>> {
    let started = Instant::now();
    let (mut first, mut in_a_row) = (Duration::ZERO, 0);
    while started.elapsed() < patience {
        if !answers(vip)? {
            in_a_row = 0;
            continue;
        }
        if in_a_row == 0 {
            first = started.elapsed();
        }
        in_a_row += 1;
        if in_a_row == IN_A_ROW {
            return Ok(Some(first));
        }
    }
    Ok(None)
}
