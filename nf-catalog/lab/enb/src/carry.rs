//! The thread that carries packets between the tun and the tunnels.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use gantry_lab_gtp::user::{self, HEADER_BYTES, Packet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::tunnels::{DropReason, Tunnels};

/// Longest packet, in bytes; the MTU is below.
const PACKET_BYTES: usize = 9000;
/// Packets that are taken from one side before the other has its turn.
const TURN: usize = 64;
/// How long it sleeps at most, in ms, before it looks whether it shall end.
const LOOK_MS: u16 = 100;

/// What was carried, and what was not.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets of devices.
    pub up: AtomicU64,
    /// Packets for devices.
    pub down: AtomicU64,
    /// Tunnels' ends that were told.
    pub end_markers: AtomicU64,
    /// Tunnels that an SGW did not know.
    pub error_indications: AtomicU64,
    /// By reason.
    pub dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counts {
    fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// See the module.
pub struct Carrier {
    /// Packets of IP.
    pub tun: File,
    /// Packets of GTP-U. It does not block.
    pub socket: UdpSocket,
    /// Shared with whoever attaches.
    pub tunnels: Arc<RwLock<Tunnels>>,
    /// Told to whoever asks.
    pub counts: Arc<Counts>,
    /// Devices that have packets and are idle.
    pub wanted: mpsc::Sender<usize>,
}

impl Carrier {
    /// Carries until `stop`.
    pub fn run(mut self, stop: &CancellationToken) -> std::io::Result<()> {
        let mut buffer = [0; PACKET_BYTES + HEADER_BYTES];
        while !stop.is_cancelled() {
            let mut sides = [
                PollFd::new(self.tun.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut sides, PollTimeout::from(LOOK_MS)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            for _ in 0..TURN {
                let up = self.up(&mut buffer)?;
                let down = self.down(&mut buffer)?;
                if !up && !down {
                    break;
                }
            }
        }
        Ok(())
    }

    /// A packet of a device, if there is one.
    fn up(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        let (header, inner) = buffer.split_at_mut(HEADER_BYTES);
        let length = match self.tun.read(inner) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let up = self.tunnels().up(&inner[..length]);
        match up {
            Ok((to, before)) => {
                header.copy_from_slice(&before);
                match self.socket.send_to(&buffer[..HEADER_BYTES + length], to) {
                    Ok(_) => self.counts.up.fetch_add(1, Ordering::Relaxed),
                    Err(_) => {
                        self.counts.dropped(DropReason::NotSent);
                        0
                    }
                };
            }
            Err((reason, nth)) => {
                self.counts.dropped(reason);
                if let Some(nth) = nth {
                    // One that cannot be told now is told by its next packet.
                    let _ = self.wanted.try_send(nth);
                }
            }
        }
        Ok(true)
    }

    /// A datagram of an SGW, if there is one.
    fn down(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        let (length, from) = match self.socket.recv_from(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // It tells that an earlier datagram found nobody.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(true),
            Err(error) => return Err(error),
        };
        match user::decode(&buffer[..length]) {
            Ok(Packet::User { teid, inner }) => self.for_device(teid, inner, from),
            Ok(Packet::EchoRequest { sequence }) => self.tell(&user::echo_response(sequence), from),
            Ok(Packet::EndMarker { .. }) => {
                self.counts.end_markers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Packet::ErrorIndication { .. }) => {
                self.counts.error_indications.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Packet::EchoResponse { .. } | Packet::Other(_)) | Err(_) => {
                self.counts.dropped(DropReason::Malformed);
            }
        }
        Ok(true)
    }

    fn for_device(&self, teid: u32, inner: &[u8], from: SocketAddr) {
        let may = self.tunnels().down(teid, inner);
        match may {
            Ok(()) => match (&self.tun).write(inner) {
                Ok(_) => {
                    self.counts.down.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => self.counts.dropped(DropReason::NotSent),
            },
            Err(reason) => {
                self.counts.dropped(reason);
                if let (DropReason::UnknownTeid, Ok(SocketAddr::V4(own))) = (reason, self.socket.local_addr())
                {
                    self.tell(&user::error_indication(teid, *own.ip()), from);
                }
            }
        }
    }

    fn tell(&self, message: &[u8], to: SocketAddr) {
        // As every datagram it may be lost.
        let _ = self.socket.send_to(message, to);
    }

    fn tunnels(&self) -> std::sync::RwLockReadGuard<'_, Tunnels> {
        self.tunnels.read().unwrap_or_else(PoisonError::into_inner)
    }
}
