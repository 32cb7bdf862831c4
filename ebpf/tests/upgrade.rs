//! The datapath outlives its loader, and its programs are replaced in place.

mod support;

use std::path::Path;

use aya::EbpfLoader;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::programs::{SchedClassifier, TcAttachType};
use gantry_ebpf::{Datapath, DatapathError, DropReason, Protocol};
use gantry_ebpf_common::layout::{
    ACTIVE, Backend as KernelBackend, BackendStats, Config, Sender, Service, ServiceKey, Table, UDP,
};
use support::{
    CLIENT, Loaded, REDIRECT, SERVER, SERVER_MAC, VIP, can_run, in_namespace, ip, networks, packet, pod, run,
    service,
};

fn program_on(interface: &str) -> Vec<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap();
    programs.iter().map(|p| p.id()).collect()
}

fn change_config(loaded: &Loaded, change: impl FnOnce(&mut Config)) {
    let data = MapData::from_pin(loaded.dir().join("CONFIG")).unwrap();
    let mut map: Array<_, Config> = Map::from_map_data(data).unwrap().try_into().unwrap();
    let mut config = map.get(&0, 0).unwrap();
    change(&mut config);
    map.set(0, config, 0).unwrap();
}

#[test]
fn another_version_replaces_the_program_on_every_link_and_keeps_the_maps() {
    if !can_run() {
        return;
    }
    in_namespace(|| {
        let loaded = Loaded::new();
        for (a, b) in [("v0", "v1"), ("w0", "w1")] {
            ip(&["link", "add", a, "type", "veth", "peer", "name", b]);
            loaded.datapath.attach(a, a).unwrap();
        }
        let first = program_on("v0");
        assert_eq!(first.len(), 1);
        loaded.datapath.attach("v0", "v0").unwrap();
        assert_eq!(program_on("v0"), first, "attaching again changes nothing");
        Datapath::ensure(&loaded.dir()).unwrap();
        assert_eq!(program_on("v0"), first, "the same object is not loaded again");

        // One interface vanished with its pin left behind, one pin vanishes while its owner removes it: no
        // reason to fail.
        ip(&["link", "del", "w0"]);
        std::os::unix::fs::symlink("nowhere", loaded.dir().join("links/gone")).unwrap();
        let pods = loaded.datapath.pods().unwrap();
        change_config(&loaded, |c| c.object_hash[0] ^= 1);
        let upgraded = Datapath::ensure(&loaded.dir()).unwrap();
        let second = program_on("v0");
        assert_eq!(second.len(), 1);
        assert_ne!(second, first);
        assert!(upgraded.is_attached("v0", "v0").unwrap());
        assert_eq!(upgraded.pods().unwrap(), pods);
        assert!(!loaded.dir().join("from_pod_next").exists());

        upgraded.detach("v0").unwrap();
        upgraded.detach("v0").unwrap();
        assert!(!upgraded.is_attached("v0", "v0").unwrap());
    });
}

/// Of the group of a sender.
const NAME: [u8; 16] = *b"sixteen letters.";

/// What a version with layout 5 leaves behind: one service, one backend, one established flow, one drop, one sender.
fn pin_former(dir: &Path) {
    #[repr(C, align(32))]
    struct Aligned<T: ?Sized>(T);
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("data/layout5.bpf.o"));
    std::fs::create_dir_all(dir.join("links")).unwrap();
    let mut loader = EbpfLoader::new();
    loader.btf(None).default_map_pin_directory(dir);
    let mut ebpf = loader.load(&OBJECT.0).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("from_pod").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.pin(dir.join("from_pod")).unwrap();
    let map = |name: &str| Map::from_map_data(MapData::from_pin(dir.join(name)).unwrap()).unwrap();
    let mut config: Array<_, Config> = map("CONFIG").try_into().unwrap();
    let value = Config {
        layout: 5,
        next_backend: 8,
        ..Config::default()
    };
    config.set(0, value, 0).unwrap();
    let key = ServiceKey {
        vip: VIP.into(),
        port: 5060,
        protocol: UDP,
        pad: 0,
    };
    let mut services: HashMap<_, ServiceKey, Service> = map("SERVICES").try_into().unwrap();
    services.insert(key, Service { index: 5 }, 0).unwrap();
    let backend = KernelBackend {
        ip: SERVER.into(),
        service: 5,
        port: 5080,
        state: ACTIVE,
        pad: 0,
        udp_idle_s: 300,
    };
    let mut backends: HashMap<_, u32, KernelBackend> = map("BACKENDS").try_into().unwrap();
    backends.insert(7, backend, 0).unwrap();
    let mut tables: HashMap<_, u32, Table> = map("TABLES").try_into().unwrap();
    tables.insert(5, [7; size_of::<Table>() / 4], 0).unwrap();
    let mut stats: PerCpuHashMap<_, u32, BackendStats> = map("BACKEND_STATS").try_into().unwrap();
    let cpus = aya::util::nr_cpus().unwrap();
    let seen = BackendStats {
        new_flows: 1,
        ..BackendStats::default()
    };
    let values = PerCpuValues::try_from(vec![seen; cpus]).unwrap();
    stats.insert(7, values, 0).unwrap();
    let mut drops: PerCpuArray<_, u64> = map("DROPS").try_into().unwrap();
    let values = PerCpuValues::try_from(vec![1; cpus]).unwrap();
    drops.set(DropReason::NoPod as u32, values, 0).unwrap();
    // Group, flags (1: it forwarded), name.
    let mut sender = [0u8; 24];
    sender[..4].copy_from_slice(&40u32.to_ne_bytes());
    sender[4..8].copy_from_slice(&1u32.to_ne_bytes());
    sender[8..].copy_from_slice(&NAME);
    let mut senders: HashMap<_, u32, [u8; 24]> = map("SENDERS").try_into().unwrap();
    senders.insert(1, sender, 0).unwrap();
}

#[test]
fn the_layout_before_is_taken_over_with_its_services_senders_and_counters() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::new();
    let dir = loaded.dir();
    for attempt in 0..2 {
        // As after an unload, but on the file system that is mounted.
        for name in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
            let _ = std::fs::remove_file(name);
        }
        pin_former(&dir);
        if attempt == 1 {
            // An attempt before this one got half way.
            std::fs::rename(dir.join("SENDERS"), dir.join("SENDERS_5")).unwrap();
        }
        let mut datapath = Datapath::ensure(&dir).unwrap();
        datapath.configure(&networks(0)).unwrap();
        datapath.add_pod(&pod(SERVER, SERVER_MAC, 1, false)).unwrap();
        datapath
            .add_pod(&pod(CLIENT, [2, 0, 0, 0, 0, 2], 1, false))
            .unwrap();
        let (verdict, frame) = run(&loaded, &packet(UDP, (CLIENT, 4000), (VIP, 5060)).bytes());
        assert_eq!((verdict, &frame[30..34]), (REDIRECT, &SERVER.octets()[..]));
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        let counted: u64 = datapath
            .backend_stats()
            .unwrap()
            .iter()
            .map(|s| s.new_flows)
            .sum();
        assert_eq!(counted, cpus + 1);
        let counters = datapath.counters().unwrap();
        assert_eq!(counters.drops[&DropReason::NoPod], cpus);
        assert_eq!(counters.drops[&DropReason::NotIpv4], 0);
        let data = MapData::from_pin(dir.join("SENDERS")).unwrap();
        let senders: HashMap<_, u32, Sender> = Map::from_map_data(data).unwrap().try_into().unwrap();
        let known = senders.get(&1, 0).unwrap();
        assert_eq!((known.group, known.realm, known.name), (40, [0; 3], NAME));
        let report = datapath
            .sync_services(&[service(Protocol::Udp, 5060, &[(SERVER, 5080)])])
            .unwrap();
        assert_eq!((report.services_added, report.backends_added), (0, 0));
        let left: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with("_5"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn other_layouts_are_refused_with_what_to_do() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::new();
    change_config(&loaded, |c| c.layout += 1);
    let error = Datapath::ensure(&loaded.dir()).unwrap_err();
    assert!(matches!(error, DatapathError::Layout { .. }));
    assert!(error.to_string().contains("purge"));
}

#[test]
fn unload_leaves_nothing_and_can_be_repeated() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::new();
    assert!(Datapath::open(&loaded.dir()).is_some());
    Datapath::unload(&loaded.dir()).unwrap();
    Datapath::unload(&loaded.dir()).unwrap();
    assert!(Datapath::open(&loaded.dir()).is_none());
    assert_eq!(
        std::fs::read_dir(loaded.dir().parent().unwrap()).unwrap().count(),
        0
    );
}

#[test]
fn unload_leaves_what_others_pinned() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::new();
    let theirs = loaded.dir().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    Datapath::unload(&loaded.dir()).unwrap();
    assert!(Datapath::open(&loaded.dir()).is_none());
    assert!(theirs.exists());
    std::fs::remove_dir(theirs).unwrap();
}

#[test]
fn many_loaders_at_once_share_one_datapath() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::new();
    Datapath::unload(&loaded.dir()).unwrap();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| Datapath::ensure(&loaded.dir()).unwrap());
        }
    });
    assert!(Datapath::open(&loaded.dir()).is_some());
}
