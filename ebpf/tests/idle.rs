//! How long a UDP flow may be silent. Time passes by making the flow's entry older.

mod support;

use std::net::Ipv4Addr;

use aya::maps::{HashMap, Map, MapData};
use gantry_ebpf::{Backend, BackendState, Protocol, Service};
use gantry_ebpf_common::layout::{Flow, FlowKey, UDP};
use support::{CLIENT, Loaded, REDIRECT, SERVER, VIP, can_run, packet, pod, run, service};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 4);
const PORT: u16 = 5060;
/// Of the draining backend, seconds.
const IDLE_S: u32 = 30;

/// A node on which `SERVER` alone serves.
fn serving() -> Loaded {
    let mut loaded = Loaded::new();
    loaded
        .datapath
        .add_pod(&pod(OTHER, [2, 0, 0, 0, 0, 4], 1, false))
        .unwrap();
    let alone = service(Protocol::Udp, PORT, &[(SERVER, PORT)]);
    loaded.datapath.sync_services(&[alone]).unwrap();
    loaded
}

/// From now on every new flow goes to `OTHER`.
fn replace(loaded: &mut Loaded, change: impl Fn(&mut Backend)) {
    let mut wanted: Service = service(Protocol::Udp, PORT, &[(SERVER, PORT), (OTHER, PORT)]);
    change(&mut wanted.backends[0]);
    loaded.datapath.sync_services(&[wanted]).unwrap();
}

fn drain(backend: &mut Backend) {
    (backend.state, backend.udp_idle_s) = (BackendState::Draining, IDLE_S);
}

/// The client asks from this port: who gets it?
fn receiver(loaded: &Loaded, sport: u16) -> Ipv4Addr {
    let (verdict, frame) = run(loaded, &packet(UDP, (CLIENT, sport), (VIP, PORT)).bytes());
    assert_eq!(verdict, REDIRECT);
    Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33])
}

/// Lets seconds pass for the client's flow from this port.
fn wait(loaded: &Loaded, sport: u16, seconds: u32) {
    let data = MapData::from_pin(loaded.dir().join("FLOWS")).unwrap();
    let mut flows: HashMap<_, FlowKey, Flow> = Map::from_map_data(data).unwrap().try_into().unwrap();
    let key = FlowKey {
        src: CLIENT.into(),
        dst: VIP.into(),
        sport,
        dport: PORT,
        protocol: UDP,
        behind: [0; 3],
    };
    let mut flow = flows.get(&key, 0).unwrap();
    flow.last_seen_s = flow.last_seen_s.wrapping_sub(seconds);
    flows.insert(key, flow, 0).unwrap();
}

#[test]
fn a_silent_flow_leaves_a_draining_backend_and_a_busy_one_stays() {
    if !can_run() {
        return;
    }
    let mut loaded = serving();
    let (busy, silent) = (4000, 4001);
    for sport in [busy, silent] {
        assert_eq!(receiver(&loaded, sport), SERVER);
    }
    replace(&mut loaded, drain);
    for _ in 0..3 {
        wait(&loaded, busy, IDLE_S / 2 + 1);
        assert_eq!(receiver(&loaded, busy), SERVER);
    }
    wait(&loaded, silent, IDLE_S + 1);
    assert_eq!(receiver(&loaded, silent), OTHER);
}

#[test]
fn an_active_backend_has_its_own_patience() {
    if !can_run() {
        return;
    }
    let mut loaded = serving();
    assert_eq!(receiver(&loaded, 4000), SERVER);
    replace(&mut loaded, |backend| backend.weight = 0);
    wait(&loaded, 4000, IDLE_S + 1);
    assert_eq!(receiver(&loaded, 4000), SERVER);
}

#[test]
fn media_from_the_backend_alone_keeps_the_flow() {
    if !can_run() {
        return;
    }
    let mut loaded = serving();
    assert_eq!(receiver(&loaded, 4000), SERVER);
    replace(&mut loaded, drain);
    for _ in 0..3 {
        wait(&loaded, 4000, IDLE_S / 2 + 1);
        run(&loaded, &packet(UDP, (SERVER, PORT), (CLIENT, 4000)).bytes());
    }
    assert_eq!(receiver(&loaded, 4000), SERVER);
}
