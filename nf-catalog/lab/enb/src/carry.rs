//! The thread that carries packets between the tun and the tunnels.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use gantry_lab_faults::{Way, packet};
use gantry_lab_gtp::user::{self, HEADER_BYTES, Packet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::faulty::{Faulty, Now};
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
    /// Of those, parts of longer ones.
    pub fragments_up: AtomicU64,
    /// Likewise.
    pub fragments_down: AtomicU64,
    /// What was done to packets on purpose.
    pub injected: AtomicU64,
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

    fn carried(&self, way: Way, inner: &[u8]) {
        let (packets, fragments) = match way {
            Way::Up => (&self.up, &self.fragments_up),
            Way::Down => (&self.down, &self.fragments_down),
        };
        packets.fetch_add(1, Ordering::Relaxed);
        fragments.fetch_add(packet::fragment(inner).is_some().into(), Ordering::Relaxed);
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
    /// What is wrong on purpose.
    pub faulty: Option<Faulty>,
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
            match poll(&mut sides, self.patience()) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.late();
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

    /// How long nothing need be done.
    fn patience(&self) -> PollTimeout {
        let wait = self
            .faulty
            .as_ref()
            .and_then(|faulty| faulty.wait(Instant::now()));
        let wait_ms = wait.map_or(u128::MAX, |wait| wait.as_millis());
        PollTimeout::from(u16::try_from(wait_ms).unwrap_or(LOOK_MS).min(LOOK_MS))
    }

    /// A packet of a device, if there is one.
    fn up(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        let length = match self.tun.read(&mut buffer[HEADER_BYTES..]) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let framed = &mut buffer[..HEADER_BYTES + length];
        match self.judged(Way::Up, &framed[HEADER_BYTES..]) {
            Now::Same(times) => (0..times).for_each(|_| self.to_sgw(framed)),
            Now::Other(inner) => self.to_sgw(&mut [&[0; HEADER_BYTES], inner.as_slice()].concat()),
        }
        Ok(true)
    }

    /// Sends a packet that has room for a header before it.
    fn to_sgw(&self, framed: &mut [u8]) {
        let (header, inner) = framed.split_at_mut(HEADER_BYTES);
        let up = self.tunnels().up(inner);
        match up {
            Ok((to, before)) => {
                header.copy_from_slice(&before);
                match self.socket.send_to(framed, to) {
                    Ok(_) => self.counts.carried(Way::Up, &framed[HEADER_BYTES..]),
                    Err(_) => self.counts.dropped(DropReason::NotSent),
                }
            }
            Err((reason, nth)) => {
                self.counts.dropped(reason);
                if let Some(nth) = nth {
                    // One that cannot be told now is told by its next packet.
                    let _ = self.wanted.try_send(nth);
                }
            }
        }
    }

    /// What goes on of a packet.
    fn judged(&mut self, way: Way, inner: &[u8]) -> Now {
        let Some(faulty) = &mut self.faulty else {
            return Now::Same(1);
        };
        let now = faulty.pass(way, inner, Instant::now());
        self.counts.injected.store(faulty.injected(), Ordering::Relaxed);
        now
    }

    /// Packets whose time has come.
    fn late(&mut self) {
        while let Some((way, inner)) = self.faulty.as_mut().and_then(|faulty| faulty.due(Instant::now())) {
            match way {
                Way::Up => self.to_sgw(&mut [&[0; HEADER_BYTES], inner.as_slice()].concat()),
                Way::Down => self.to_device(&inner),
            }
        }
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

    fn for_device(&mut self, teid: u32, inner: &[u8], from: SocketAddr) {
        let may = self.tunnels().down(teid, inner);
        match may {
            Ok(()) => match self.judged(Way::Down, inner) {
                Now::Same(times) => (0..times).for_each(|_| self.to_device(inner)),
                Now::Other(inner) => self.to_device(&inner),
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

    fn to_device(&self, inner: &[u8]) {
        let written = (&self.tun).write(inner);
        // Each write is one packet, or none.
        match written {
            Ok(_) => self.counts.carried(Way::Down, inner),
            Err(_) => self.counts.dropped(DropReason::NotSent),
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
