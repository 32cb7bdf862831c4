//! The datapath outlives its loader, and its programs are replaced in place.

mod support;

use std::process::Command;

use aya::maps::{Array, Map, MapData};
use aya::programs::{SchedClassifier, TcAttachType};
use gantry_ebpf::{Datapath, DatapathError};
use gantry_ebpf_common::layout::Config;
use support::{Loaded, can_run};

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// On a thread with a network namespace of its own, which goes when the thread ends.
fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let enter = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work();
    };
    if let Err(panic) = std::thread::spawn(enter).join() {
        std::panic::resume_unwind(panic);
    }
}

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
