//! A loaded datapath in a directory of its own, and packets.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::Ipv4Addr;
use std::path::PathBuf;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use gantry_ebpf::{
    Backend, BackendState, Counters, Datapath, DropReason, NodeNet, PacketPath, PodEntry, Protocol, Service,
};
use gantry_ebpf_common::checksum;
use gantry_ebpf_common::layout::{SCTP, TCP, UDP};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 2);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 3);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 86, 0, 10);
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// Verdict of `linux/pkt_cls.h`: to another interface.
pub const REDIRECT: u32 = 7;
/// Nowhere.
pub const DROP: u32 = 2;
/// On to the IP stack.
pub const PASS: u32 = 0;

/// Counters that moved, and by how much.
pub type Moved = (Vec<(DropReason, u64)>, Vec<(PacketPath, u64)>);

/// What moved between two readings.
pub fn moved(before: &Counters, after: &Counters) -> Moved {
    let drops = after
        .drops
        .iter()
        .map(|(k, v)| (*k, v - before.drops[k]))
        .filter(|(_, v)| *v > 0);
    let paths = after
        .paths
        .iter()
        .map(|(k, v)| (*k, v - before.paths[k]))
        .filter(|(_, v)| *v > 0);
    (drops.collect(), paths.collect())
}

/// The packet as it must come out: other addresses, the receiver's MAC, everything computed anew.
pub fn becomes(p: &Packet, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), dst_mac: [u8; 6]) -> Vec<u8> {
    Packet {
        src,
        dst,
        dst_mac,
        ..p.clone()
    }
    .bytes()
}

/// Tells loudly why a test does nothing; fails instead if REQUIRE holds `bpf`.
pub fn can_run() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("SKIPPED: not root");
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r == "bpf"),
        "REQUIRE=bpf, but not root"
    );
    false
}

/// The node's networks, the host sending from this interface.
pub fn networks(host_peer: u32) -> NodeNet {
    NodeNet {
        pods: (GATEWAY, 24),
        services: (Ipv4Addr::new(10, 86, 0, 0), 16),
        host_peer,
    }
}

pub fn pod(ip: Ipv4Addr, mac: [u8; 6], ifindex: u32, is_host: bool) -> PodEntry {
    PodEntry {
        ip,
        ifindex,
        mac,
        is_host,
    }
}

/// Verdict on a packet and what became of it.
pub fn run(loaded: &Loaded, frame: &[u8]) -> (u32, Vec<u8>) {
    run_at(loaded, 1, frame)
}

/// On a packet that enters at this interface of the caller's network namespace.
pub fn run_at(loaded: &Loaded, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
    // `struct __sk_buff` of `linux/bpf.h` up to the interface.
    let mut context = [0; 44];
    context[40..].copy_from_slice(&ifindex.to_ne_bytes());
    let program = SchedClassifier::from_pin(loaded.dir().join("from_pod")).unwrap();
    let mut out = vec![0; frame.len() + 64];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })
        .unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// The last verdict on a packet that comes as often.
pub fn run_often(loaded: &Loaded, frame: &[u8], times: u32) -> u32 {
    let program = SchedClassifier::from_pin(loaded.dir().join("from_pod")).unwrap();
    let mut context = [0; 44];
    context[40..].copy_from_slice(&1u32.to_ne_bytes());
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        repeat: times,
        ..TestRunOptions::new()
    });
    result.unwrap().return_value
}

/// A service at VIP.
pub fn service(protocol: Protocol, port: u16, backends: &[(Ipv4Addr, u16)]) -> Service {
    let backend = |(address, port): &(Ipv4Addr, u16)| Backend {
        address: *address,
        port: *port,
        weight: 1,
        state: BackendState::Active,
        udp_idle_s: 300,
    };
    Service {
        vip: VIP,
        port,
        protocol,
        backends: backends.iter().map(backend).collect(),
    }
}

pub fn ip(args: &[&str]) {
    let output = std::process::Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// On a thread with a network namespace of its own, which goes when the thread ends.
pub fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let enter = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work();
    };
    if let Err(panic) = std::thread::spawn(enter).join() {
        std::panic::resume_unwind(panic);
    }
}

pub struct Loaded {
    pub datapath: Datapath,
    dir: tempfile::TempDir,
}

impl Loaded {
    pub fn new() -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let bpf = dir.path().join("bpf");
        let datapath = Datapath::ensure(&bpf).unwrap_or_else(|error| {
            let _ = Datapath::unload(&bpf);
            panic!("{error:?}");
        });
        let loaded = Loaded { datapath, dir };
        loaded.datapath.configure(&networks(0)).unwrap();
        // Test runs enter at interface 1, loopback, and do not send: there everybody is.
        for pod in [
            pod(SERVER, SERVER_MAC, 1, false),
            pod(CLIENT, [2, 0, 0, 0, 0, 2], 1, false),
            pod(GATEWAY, [2, 0, 0, 0, 0, 1], 1, true),
        ] {
            loaded.datapath.add_pod(&pod).unwrap();
        }
        loaded
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = Datapath::unload(&self.dir());
    }
}

/// An IPv4 packet with right checksums.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: (Ipv4Addr, u16),
    pub dst: (Ipv4Addr, u16),
    pub protocol: u8,
    /// Of the IPv4 header, a multiple of 4.
    pub options: usize,
    /// Flags and offset field.
    pub fragment: u16,
    /// TCP flags or SCTP chunk type.
    pub opening: u8,
    pub payload: Vec<u8>,
    pub dst_mac: [u8; 6],
    /// UDP only: send it without.
    pub no_checksum: bool,
    /// The whole transport header; with it the fields that make one are not looked at.
    pub raw: Option<[u8; 4]>,
}

pub fn packet(protocol: u8, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Packet {
    Packet {
        src,
        dst,
        protocol,
        options: 0,
        fragment: 0,
        opening: 0x10,
        payload: b"payload".to_vec(),
        dst_mac: [2, 0, 0, 0, 0, 99],
        no_checksum: false,
        raw: None,
    }
}

impl Packet {
    pub fn bytes(&self) -> Vec<u8> {
        let l4 = if self.fragment & 0x1fff != 0 {
            self.payload.clone()
        } else {
            self.transport()
        };
        let header = 20 + self.options;
        let mut ip = vec![0u8; header];
        ip[0] = 0x40 | (header / 4) as u8;
        ip[2..4].copy_from_slice(&((header + l4.len()) as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&[0x12, 0x34]);
        ip[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        ip[8] = 64;
        ip[9] = self.protocol;
        ip[12..16].copy_from_slice(&self.src.0.octets());
        ip[16..20].copy_from_slice(&self.dst.0.octets());
        ip[20..].fill(1); // no-operation options
        let sum = checksum::full(&ip, 0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = self.dst_mac.to_vec();
        frame.extend([2, 0, 0, 0, 0, 98, 8, 0]);
        frame.extend(ip);
        frame.extend(l4);
        frame
    }

    fn transport(&self) -> Vec<u8> {
        if let Some(header) = self.raw {
            return [&header[..], &self.payload].concat();
        }
        let mut l4 = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
        let at = match self.protocol {
            6 => {
                l4.resize(20, 0);
                (l4[12], l4[13]) = (0x50, self.opening);
                Some(16)
            }
            17 => {
                l4.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                l4.extend([0, 0]);
                (!self.no_checksum).then_some(6)
            }
            _ => {
                l4.resize(16, 0);
                l4[12] = self.opening;
                None
            }
        };
        l4.extend(&self.payload);
        if let Some(at) = at {
            let addresses = [self.src.0.octets(), self.dst.0.octets()].concat();
            let pseudo = u32::from(!checksum::full(&addresses, 0));
            let sum = checksum::full(&l4, pseudo + u32::from(self.protocol) + l4.len() as u32);
            // All ones stand for a UDP checksum that came out as zero (RFC 768).
            let sum = if sum == 0 && self.protocol == 17 {
                0xffff
            } else {
                sum
            };
            l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        l4
    }
}

/// With a service of each protocol, and one that nobody serves.
pub fn with_services() -> Loaded {
    let mut loaded = Loaded::new();
    let services = [
        service(Protocol::Udp, 5060, &[(SERVER, 5080)]),
        service(Protocol::Tcp, 5060, &[(SERVER, 5080)]),
        service(Protocol::Sctp, 38412, &[(SERVER, 38412)]),
        service(Protocol::Udp, 9, &[]),
    ];
    loaded.datapath.sync_services(&services).unwrap();
    loaded
}

/// What opens a flow to each of those services, with and without IP options and checksum; and the port of its backend.
pub fn to_services() -> impl Iterator<Item = (Packet, u16)> {
    let services = [
        (UDP, 5060, 5080, 0),
        (TCP, 5060, 5080, 0x02),
        (SCTP, 38412, 38412, 1),
    ];
    services
        .into_iter()
        .flat_map(|(protocol, port, backend_port, opening)| {
            [(0, false), (8, false), (0, true)].map(|(options, no_checksum)| {
                let sport = 4000 + options as u16 + u16::from(no_checksum);
                let mut p = packet(protocol, (CLIENT, sport), (VIP, port));
                (p.options, p.no_checksum, p.opening) = (options, no_checksum, opening);
                (p, backend_port)
            })
        })
}
