//! Sends packets from each device's own address at a rate, and hands what comes back to the judge.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use tokio_util::sync::CancellationToken;

use crate::judge::Judge;
use crate::packet::{MOST_BYTES, Packet};

/// Between two looks at what is due.
const TURN: Duration = Duration::from_micros(200);
/// How long the receiver sleeps at most, in ms, before it looks whether it shall end.
const LOOK_MS: u16 = 50;
/// Bytes that a socket holds.
const SOCKET_BYTES: usize = 4 << 20;
/// Sockets that are told at once.
const READY: usize = 256;

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Where to.
    pub to: SocketAddrV4,
    /// Packets in a second.
    pub rate: u64,
    /// All packets.
    pub packets: u64,
    /// Bytes of a packet within UDP.
    pub bytes: usize,
    /// Of all packets of this run.
    pub run: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// Those that the kernel did not take.
    pub refused: u64,
    /// How long it took.
    pub took: Duration,
    /// By how much a packet was later than its time, at most.
    pub late: Duration,
}

/// A socket for each address.
pub fn sockets(addresses: &[Ipv4Addr]) -> io::Result<Arc<[UdpSocket]>> {
    let bound = addresses.iter().map(|address| {
        let socket = UdpSocket::bind((*address, 0))
            .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        make_room(&socket);
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.collect()
}

/// What comes while this program does not run shall not be lost by it.
pub fn make_room(socket: &UdpSocket) {
    // Less is no error: the kernel has its own bound.
    let _ = setsockopt(socket, sockopt::RcvBuf, &SOCKET_BYTES);
}

/// Sends, device after device, until all is sent or `stop`.
pub fn send(sockets: &[UdpSocket], work: &Work, begun: Instant, stop: &CancellationToken) -> Sent {
    let mut buffer = vec![0; work.bytes];
    let mut sent = Sent::default();
    while sent.packets + sent.refused < work.packets && !stop.is_cancelled() {
        let now = begun.elapsed();
        let due = due(now, work.rate).min(work.packets);
        while sent.packets + sent.refused < due {
            let nth = sent.packets + sent.refused;
            let at = begun.elapsed();
            sent.late = sent.late.max(at.saturating_sub(time_of(nth, work.rate)));
            let device = nth % sockets.len() as u64;
            let packet = Packet {
                run: work.run,
                device: u32::try_from(device).unwrap_or(u32::MAX),
                sequence: nth / sockets.len() as u64,
                sent_us: us(at),
            };
            packet.write(&mut buffer);
            match sockets[device as usize].send_to(&buffer, work.to) {
                Ok(_) => sent.packets += 1,
                Err(_) => sent.refused += 1,
            }
        }
        std::thread::sleep(TURN);
    }
    sent.took = begun.elapsed();
    sent
}

/// Receives until `end`.
pub fn receive(
    sockets: &[UdpSocket],
    to: SocketAddrV4,
    judge: &mut Judge,
    begun: Instant,
    end: &CancellationToken,
) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (nth, socket) in (0..).zip(sockets) {
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, nth))?;
    }
    let mut ready = [EpollEvent::empty(); READY];
    let mut buffer = vec![0; MOST_BYTES + 1];
    while !end.is_cancelled() {
        let count = match epoll.wait(&mut ready, EpollTimeout::from(LOOK_MS)) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in &ready[..count] {
            let Some((nth, socket)) = usize::try_from(event.data())
                .ok()
                .and_then(|nth| Some((nth, sockets.get(nth)?)))
            else {
                continue;
            };
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        let from_target = from == SocketAddr::V4(to);
                        judge.heard(nth, &buffer[..length], from_target, us(begun.elapsed()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // Somebody on the way says that a packet found nobody: it is lost, and counted as such.
                    Err(_) => {}
                }
            }
        }
    }
    Ok(())
}

/// How many packets have had their time.
fn due(now: Duration, rate: u64) -> u64 {
    let packets = now.as_micros() * u128::from(rate) / 1_000_000;
    u64::try_from(packets).unwrap_or(u64::MAX).saturating_add(1)
}

fn time_of(nth: u64, rate: u64) -> Duration {
    Duration::from_micros(
        u64::try_from(u128::from(nth) * 1_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX),
    )
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_their_times() {
        assert_eq!(due(Duration::ZERO, 5000), 1);
        assert_eq!(due(Duration::from_millis(1), 5000), 6);
        assert_eq!(time_of(5, 5000), Duration::from_millis(1));
    }
}
