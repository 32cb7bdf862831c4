//! What a pod leaves unread in its sockets is memory of the node, and has a bound as its other memory has.

mod runtime_support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use gantry_nodeagent::host::cgroup::Hierarchy;
use gantry_nodeagent::runtime::{ContainerStart, PodDir};
use gantry_nodeagent_api::ContainerResources;
use runtime_support::{Node, PATIENCE, cpus, libraries_of, logged, node, until};

const LIMIT_BYTES: u64 = 64 << 20;
/// What it tries to leave in sockets: more than it may have, and less than what a node holds everybody back for.
const TRIED_BYTES: u64 = 160 << 20;
/// Of each the kernel takes a first piece, whatever the limit is.
const CONNECTIONS: usize = 400;
const FIRST_PIECE_BYTES: u64 = 80 << 10;
static CHUNK: [u8; 60_000] = [7; 60_000];

/// In the container: says how much it could leave unread, and keeps it.
#[test]
fn fill_in_container() {
    let Ok(kind) = std::env::var("GANTRY_FILL") else {
        return;
    };
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    let mut left = 0;
    if kind == "tcp" {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        while left < TRIED_BYTES && kept.len() < 2 * CONNECTIONS {
            let Ok(mut sender) = TcpStream::connect_timeout(&address, PATIENCE) else {
                break;
            };
            kept.push(Box::new(listener.accept().unwrap()));
            sender.set_nonblocking(true).unwrap();
            while let Ok(written) = sender.write(&CHUNK) {
                left += written as u64;
            }
            kept.push(Box::new(sender));
        }
    } else {
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut buffer = vec![0; CHUNK.len()];
        let mut receivers = Vec::new();
        for _ in 0..900 {
            let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let to = receiver.local_addr().unwrap();
            for _ in 0..16 {
                sender.send_to(&CHUNK, to).unwrap();
            }
            receiver.set_nonblocking(true).unwrap();
            receivers.push(receiver);
        }
        for receiver in &receivers {
            while let Ok(length) = receiver.recv(&mut buffer) {
                left += length as u64;
            }
        }
    }
    println!("@left {left}");
    std::thread::sleep(Duration::from_secs(1000));
}

/// A container that does so; `free` takes its limit on sockets away.
fn fill(node: &Node, kind: &str, free: bool) -> (PodDir, u64) {
    let uid = format!("{kind}{free}");
    let pod = node.pod(&uid);
    let root = pod.path().join("rootfs");
    fs::copy(std::env::current_exe().unwrap(), root.join("bin/fill")).unwrap();
    libraries_of(std::process::id(), &root);
    let mut start = node.sh(&pod, &uid, "web", "");
    limit(node, &uid, LIMIT_BYTES).unwrap();
    node.cgroups.bound_pod(&uid, LIMIT_BYTES).unwrap();
    if free {
        for group in ["", "web"] {
            fs::write(sockets_limit(node, &uid, group).unwrap(), "-1").unwrap();
        }
    }
    let arguments = ["/bin/fill", "--exact", "fill_in_container", "--nocapture"];
    start.argv = arguments.map(str::to_owned).to_vec();
    start.env = vec![("GANTRY_FILL".to_owned(), kind.to_owned())];
    node.shim(&pod).start_container(&start).unwrap();
    let left = until("it has left all that it could", || left(&start));
    eprintln!("{kind}, free: {free}: {} MiB", left >> 20);
    (pod, left)
}

fn left(start: &ContainerStart) -> Option<u64> {
    let said = logged(start);
    let (_, rest) = said.split_once("@left ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn limit(
    node: &Node,
    uid: &str,
    memory_bytes: u64,
) -> Result<(), gantry_nodeagent::host::cgroup::CgroupError> {
    let resources = ContainerResources {
        memory_bytes,
        ..ContainerResources::default()
    };
    node.cgroups
        .apply_resources(uid, "web", &resources, &cpus("0-1"), &[])
}

/// Where cgroup v1 counts them apart.
fn sockets_limit(node: &Node, uid: &str, container: &str) -> Option<PathBuf> {
    let Hierarchy::V1(mounts) = node.cgroups.hierarchy() else {
        return None;
    };
    let group = mounts["memory"].join(format!("gantry/{}/pod{uid}", node.instance));
    Some(group.join(container).join("memory.kmem.tcp.limit_in_bytes"))
}

#[test]
fn unread_connections_and_datagrams_have_the_limit_of_the_pod() {
    let Some(node) = node() else { return };
    for kind in ["tcp", "udp"] {
        let (_, left) = fill(&node, kind, false);
        assert!(left > 4 << 20, "it was real: {kind}: {left}");
        let most = LIMIT_BYTES + CONNECTIONS as u64 * FIRST_PIECE_BYTES;
        assert!(left < most, "{kind}: {left}");
    }
}

#[test]
fn control_without_the_limit_they_take_more() {
    let Some(node) = node() else { return };
    if sockets_limit(&node, "", "").is_none() {
        eprintln!("SKIPPED: cgroup v2 counts sockets in the limit on memory");
        return;
    }
    for kind in ["tcp", "udp"] {
        let (_, left) = fill(&node, kind, true);
        assert!(left > 2 * LIMIT_BYTES, "{kind}: {left}");
    }
}

#[test]
fn the_limit_on_sockets_follows_the_limit_on_memory() {
    let Some(node) = node() else { return };
    let Some(file) = sockets_limit(&node, "tcpfalse", "web") else {
        eprintln!("SKIPPED: cgroup v2 counts sockets in the limit on memory");
        return;
    };
    let now = || -> u64 {
        let mut text = String::new();
        fs::File::open(&file).unwrap().read_to_string(&mut text).unwrap();
        text.trim().parse().unwrap()
    };
    let _pod = fill(&node, "tcp", false);
    assert_eq!(now(), LIMIT_BYTES);
    // Its other memory would fit.
    let error = limit(&node, "tcpfalse", 40 << 20).unwrap_err();
    assert!(error.in_use(), "{error}");
    let memory = node.cgroups.in_force("tcpfalse", "web").unwrap().memory_bytes;
    assert_eq!((now(), memory), (LIMIT_BYTES, LIMIT_BYTES), "nothing was changed");
    limit(&node, "tcpfalse", 2 * LIMIT_BYTES).unwrap();
    let grown = now();
    assert!(LIMIT_BYTES < grown && grown <= 2 * LIMIT_BYTES, "{grown}");
    limit(&node, "tcpfalse", 0).unwrap();
    // Without a limit of its own it has a share of the node's.
    assert!((grown..1 << 40).contains(&now()), "{}", now());
}
