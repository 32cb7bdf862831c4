//! What a packet costs, beside the program of the layout before: same packets, same tables, in turn. Ratios only; the machine may be
//! busy, so of many rounds the shortest counts.

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use aya::EbpfLoader;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use gantry_ebpf::Protocol;
use gantry_ebpf_common::layout::UDP;
use support::{CLIENT, GATEWAY, Loaded, SERVER, SERVER_MAC, VIP, can_run, networks, packet, pod, service};

const ROUNDS: usize = 20;
/// A packet may cost this many hundredths of what it cost.
const MOST_PERCENT: u128 = 130;

/// The object of before instead of this version's, with its maps as this version fills them.
fn former() -> Loaded {
    #[repr(C, align(32))]
    struct Aligned<T: ?Sized>(T);
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("data/layout5.bpf.o"));
    let loaded = Loaded::new();
    let dir = loaded.dir();
    for name in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
        let _ = std::fs::remove_file(name);
    }
    let mut loader = EbpfLoader::new();
    loader.btf(None).default_map_pin_directory(&dir);
    let mut ebpf = loader.load(&OBJECT.0).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("from_pod").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.pin(dir.join("from_pod")).unwrap();
    loaded
}

fn prepare(loaded: &mut Loaded) -> SchedClassifier {
    let datapath = &mut loaded.datapath;
    datapath.configure(&networks(0)).unwrap();
    for pod in [
        pod(SERVER, SERVER_MAC, 1, false),
        pod(CLIENT, [2, 0, 0, 0, 0, 2], 1, false),
        pod(GATEWAY, [2, 0, 0, 0, 0, 1], 1, true),
    ] {
        datapath.add_pod(&pod).unwrap();
    }
    let served = service(Protocol::Udp, 5060, &[(SERVER, 5080)]);
    datapath.sync_services(&[served]).unwrap();
    SchedClassifier::from_pin(loaded.dir().join("from_pod")).unwrap()
}

/// Mean time of `repeat` runs. A packet that the program changes is another one in the next.
fn time(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Duration {
    let mut context = [0; 44];
    context[40..].copy_from_slice(&1u32.to_ne_bytes());
    let run = |repeat| {
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        program.test_run(options).unwrap().duration
    };
    match repeat {
        1 => (0..2000).map(|_| run(1)).sum::<Duration>() / 2000,
        more => run(more),
    }
}

#[test]
fn packets_between_pods_to_services_and_to_the_outside_cost_what_they_did() {
    if !can_run() {
        return;
    }
    let (mut before, mut now) = (former(), Loaded::new());
    let (before, now) = (prepare(&mut before), prepare(&mut now));
    // Of a million that the kernel's verifier looks at.
    let [was, is] = [&before, &now].map(|p| p.info().unwrap().verified_instruction_count().unwrap_or(0));
    println!("verifier: {was} instructions -> {is}");
    assert!(is < 100_000, "{is} instructions");
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    for (what, to, repeat) in [
        ("pod", (SERVER, 7), 100_000),
        ("outside", (outside, 80), 100_000),
        ("service", (VIP, 5060), 1),
    ] {
        let frame = packet(UDP, (CLIENT, 4000), to).bytes();
        let mut least = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (program, least) in [&before, &now].into_iter().zip(&mut least) {
                *least = time(program, &frame, repeat).min(*least);
            }
        }
        let [was, is] = least.map(|d| d.as_nanos());
        println!("{what}: {was} ns -> {is} ns");
        assert!(
            is * 100 <= was * MOST_PERCENT + 500,
            "{what}: {was} ns -> {is} ns"
        );
    }
}
