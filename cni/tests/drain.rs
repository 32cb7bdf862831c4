//! How long a UDP flow may be silent before a draining backend loses it.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use gantry_ebpf::{Backend, BackendState, Protocol, Service};
use support::peers::{ask, serve, udp_client};
use support::{Node, Pod, can_run};

/// The service whose first backend drains.
const DRAINS: Ipv4Addr = Ipv4Addr::new(10, 86, 0, 10);
/// The service whose first backend stays.
const STAYS: Ipv4Addr = Ipv4Addr::new(10, 86, 0, 11);

fn active(pod: &Pod, weight: u32) -> Backend {
    Backend {
        address: pod.ip,
        port: 5060,
        weight,
        state: BackendState::Active,
        udp_idle_s: 300,
    }
}

fn services(drains: &[Backend], stays: &[Backend]) -> [Service; 2] {
    [(DRAINS, drains), (STAYS, stays)].map(|(vip, backends)| Service {
        vip,
        port: 5060,
        protocol: Protocol::Udp,
        backends: backends.to_vec(),
    })
}

fn who(socket: &UdpSocket, vip: Ipv4Addr) -> String {
    ask(socket, (vip, 5060), 10).expect("UDP answer").0
}

#[test]
fn a_silent_flow_leaves_a_draining_backend_and_a_busy_one_stays() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neti");
    let (client, b, c) = (node.pod("client"), node.pod("b"), node.pod("c"));
    let (_sb, _sc) = (serve(&b.ns, "b", 5060), serve(&c.ns, "c", 5060));
    let mut datapath = node.datapath();
    let alone = [active(&b, 1)];
    datapath.sync_services(&services(&alone, &alone)).unwrap();
    let socket = || udp_client(&client.ns, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let (busy, silent, silent_active) = (socket(), socket(), socket());
    for (socket, vip) in [(&busy, DRAINS), (&silent, DRAINS), (&silent_active, STAYS)] {
        assert_eq!(who(socket, vip), "b");
    }
    let silent_since = Instant::now();
    // From now on every new flow goes to c, at both services.
    let short = Backend {
        state: BackendState::Draining,
        udp_idle_s: 2,
        ..active(&b, 1)
    };
    let wanted = services(&[short, active(&c, 1)], &[active(&b, 0), active(&c, 1)]);
    let report = datapath.sync_services(&wanted).unwrap();
    assert_eq!((report.backends_changed, report.backends_added), (1, 2));
    // The kernel counts whole seconds of a clock that ticks every few milliseconds: more than 2 are 3.
    while silent_since.elapsed() < Duration::from_millis(3_100) {
        assert_eq!(who(&busy, DRAINS), "b", "a busy flow stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        who(&silent, DRAINS),
        "c",
        "silent for longer than its backend allows"
    );
    assert_eq!(who(&silent_active, STAYS), "b", "an active backend allows more");
    assert_eq!(who(&busy, DRAINS), "b");
}
