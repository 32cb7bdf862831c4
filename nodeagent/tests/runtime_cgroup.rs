//! Cgroups: the real ones of this host, whichever version it has (`cargo xtask vm` has v2), and the writes for v2 on a tree
//! of files that looks like one: there each value is seen, also those for which the kernel shows another.

mod runtime_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use gantry_nodeagent::host::cgroup::{CgroupError, Cgroups, Hierarchy};
use gantry_nodeagent_api::{ContainerResources, EndReason};
use runtime_support::{Node, PATIENCE, cpus, exit_on_record, logged, node, until};

fn resources(list: &str, milli: u32) -> ContainerResources {
    ContainerResources {
        cpus: cpus(list),
        cpu_request_milli: milli,
        ..ContainerResources::default()
    }
}

/// Where a controller's groups are.
fn mount<'a>(node: &'a Node, controller: &str) -> &'a Path {
    match node.cgroups.hierarchy() {
        Hierarchy::V1(mounts) => &mounts[controller],
        Hierarchy::V2 { point, .. } => point,
    }
}

#[test]
fn the_pods_group_is_the_union_of_its_containers() {
    let Some(node) = node() else { return };
    let pod = mount(&node, "cpuset")
        .join("gantry")
        .join(&node.instance)
        .join("podu");
    let weight = mount(&node, "cpu")
        .join("gantry")
        .join(&node.instance)
        .join("podu");
    let (weight, sum) = match node.cgroups.hierarchy() {
        Hierarchy::V1(_) => (weight.join("cpu.shares"), "1536"),
        Hierarchy::V2 { .. } => (weight.join("cpu.weight"), "150"),
    };
    let shared = cpus("0");
    let now = || {
        fs::read_to_string(pod.join("cpuset.cpus"))
            .unwrap()
            .trim()
            .to_owned()
    };
    node.cgroups
        .create("u", "a", &resources("1", 1000), &shared, &[])
        .unwrap();
    assert_eq!(now(), "1");
    node.cgroups
        .create("u", "b", &resources("", 500), &shared, &[])
        .unwrap();
    assert_eq!(now(), "0-1");
    assert_eq!(fs::read_to_string(&weight).unwrap().trim(), sum);
    node.cgroups
        .apply_resources("u", "a", &resources("", 1000), &shared, &[0])
        .unwrap();
    assert_eq!(now(), "0");
    assert_eq!(
        node.cgroups.in_force("u", "a").unwrap().resources(&shared).cpus,
        cpus("")
    );
    assert_eq!(node.cgroups.pods().unwrap(), ["u"]);
    assert_eq!(node.cgroups.containers("u").unwrap(), ["a", "b"]);
    node.cgroups.remove_pod("u", PATIENCE).unwrap();
    node.cgroups.remove_pod("u", PATIENCE).unwrap();
    assert!(!pod.exists() && node.cgroups.pods().unwrap().is_empty());
}

#[test]
fn everything_in_a_pod_is_killed_and_nothing_else() {
    let Some(node) = node() else { return };
    let mut children: Vec<_> = (0..3)
        .map(|_| Command::new("sleep").arg("1000").spawn().unwrap())
        .collect();
    for (child, pod) in children.iter().zip(["x", "x", "y"]) {
        node.cgroups
            .create(pod, "c", &resources("0", 0), &cpus(""), &[])
            .unwrap();
        let group = node.cgroups.container_path(pod, "c");
        fs::write(
            mount(&node, "memory").join(&group[1..]).join("cgroup.procs"),
            child.id().to_string(),
        )
        .unwrap();
    }
    assert_eq!(node.cgroups.pids_of_pod("x").unwrap().len(), 2);
    node.cgroups.kill_pod("x", PATIENCE).unwrap();
    // A dying process may have left its group and not have ended yet.
    for child in &mut children[..2] {
        until("the killed ones have ended", || child.try_wait().unwrap());
    }
    assert!(children[2].try_wait().unwrap().is_none());
    node.cgroups.remove_all(PATIENCE).unwrap();
    until("the last one has ended", || children[2].try_wait().unwrap());
    assert!(node.cgroups.pods().unwrap().is_empty());
}

#[test]
fn all_pods_together_have_a_limit_and_none_that_runs_is_killed_for_it() {
    let Some(node) = node() else { return };
    assert_eq!(node.cgroups.bound_pods(512 << 20).unwrap(), 512 << 20);
    let (kept, hog) = (node.pod("kept"), node.pod("hog"));
    let shim = node.shim(&kept);
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=48; echo full; sleep 1000";
    let start = node.sh(&kept, "kept", "web", script);
    shim.start_container(&start).unwrap();
    until("it has its memory", || {
        logged(&start).contains("full").then_some(())
    });
    // Less than is in use: all of it stays, and a little is left.
    let limit = node.cgroups.bound_pods(32 << 20).unwrap();
    assert!((112 << 20..512 << 20).contains(&limit), "{limit}");
    let mut greedy = node.sh(
        &hog,
        "hog",
        "web",
        "set -e; dd if=/dev/zero of=/dev/null bs=500M count=1; sleep 1000",
    );
    greedy.oom_events = node.cgroups.oom_events("hog", "web");
    greedy.oom_score_adj = 1000;
    node.shim(&hog).start_container(&greedy).unwrap();
    let exit = exit_on_record(&hog, "web").exit.unwrap();
    assert_eq!(exit.reason, Some(EndReason::OomKilled), "{exit:?}");
    assert!(shim.status().unwrap().containers[0].running());
    // Room again.
    assert_eq!(node.cgroups.bound_pods(512 << 20).unwrap(), 512 << 20);
}

#[test]
fn resources_change_under_a_running_container() {
    let Some(node) = node() else { return };
    let pod = node.pod("r");
    let shim = node.shim(&pod);
    // What is in a tmpfs counts as the container's memory, and cannot be dropped like a cache.
    let start = node.sh(
        &pod,
        "r",
        "web",
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=16; sleep 1000",
    );
    shim.start_container(&start).unwrap();
    let want = |list: &str, limit, memory_bytes| ContainerResources {
        cpus: cpus(list),
        cpu_request_milli: 500,
        cpu_limit_milli: limit,
        memory_bytes,
        ..ContainerResources::default()
    };
    let shared = cpus("0-1");
    for wanted in [
        want("1", Some(1500), 256 << 20),
        want("0-1", None, 512 << 20),
        want("0", Some(250), 128 << 20),
    ] {
        node.cgroups
            .apply_resources("r", "web", &wanted, &shared, &[0])
            .unwrap();
        let now = node.cgroups.in_force("r", "web").unwrap();
        assert_eq!(
            (&now.cpus, now.cpu_limit_milli, now.memory_bytes),
            (&wanted.cpus, wanted.cpu_limit_milli, wanted.memory_bytes)
        );
        assert_eq!(now.cpu_request_milli, 500);
        let said = node.exec(&pod, "web", "grep Cpus_allowed_list /proc/1/status");
        assert_eq!(
            String::from_utf8_lossy(&said.stdout).trim(),
            format!("Cpus_allowed_list:\t{}", wanted.cpus)
        );
    }
    let turns = [want("1", Some(1500), 256 << 20), want("0-1", None, 512 << 20)];
    let before = Instant::now();
    for turn in turns.iter().cycle().take(200) {
        node.cgroups
            .apply_resources("r", "web", turn, &shared, &[0])
            .unwrap();
    }
    eprintln!(
        "resize of CPUs, quota and memory: {:?} (mean)",
        before.elapsed() / 200
    );
    until("it uses memory", || {
        logged(&start).contains("records out").then_some(())
    });
    let before = node.cgroups.in_force("r", "web").unwrap();
    let error = node
        .cgroups
        .apply_resources("r", "web", &want("1", None, 1 << 20), &shared, &[])
        .unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(node.cgroups.in_force("r", "web").unwrap(), before);
    assert!(
        node.cgroups
            .apply_resources("r", "web", &want("", None, 0), &cpus(""), &[])
            .is_err()
    );
}

#[test]
fn all_pods_together_leave_processes_to_the_host() {
    let Some(node) = node() else { return };
    node.cgroups.bound_processes().unwrap();
    let file = mount(&node, "pids").join("gantry/pids.max");
    let most: u64 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    for bound in ["pid_max", "threads-max"] {
        let node: u64 = fs::read_to_string(format!("/proc/sys/kernel/{bound}"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(most <= node / 4 * 3, "{bound}: {most} of {node}");
    }
}

/// A tree with one pod's groups and the files that a v2 kernel would show.
fn v2_tree(root: &Path) -> PathBuf {
    let pod = root.join("gantry/i/podu");
    fs::create_dir_all(pod.join("c")).unwrap();
    let files = BTreeMap::from([
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids"),
        ("cgroup.subtree_control", "cpu"),
        ("cgroup.procs", ""),
        ("cpuset.cpus", ""),
        ("cpuset.cpus.effective", "0-7"),
        ("cpuset.mems", ""),
        ("cpuset.mems.effective", "0-1"),
        ("cpu.weight", "100"),
        ("cpu.max", "max 100000"),
        ("memory.max", "max"),
        ("memory.current", "1048576"),
        ("memory.reclaim", ""),
        ("pids.max", "max"),
        ("hugetlb.2MB.max", "max"),
        ("hugetlb.2MB.rsvd.max", "max"),
    ]);
    let groups = ["", "gantry", "gantry/i", "gantry/i/podu", "gantry/i/podu/c"];
    for (group, (file, content)) in groups.iter().flat_map(|g| files.iter().map(move |f| (g, f))) {
        fs::write(root.join(group).join(file), format!("{content}\n")).unwrap();
    }
    pod
}

#[test]
fn v2_gets_its_own_files_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let pod = v2_tree(dir.path());
    let cgroups = Cgroups::new(Hierarchy::v2(dir.path().to_owned()).unwrap(), "i");
    let wanted = ContainerResources {
        cpus: cpus("2-3"),
        cpu_request_milli: 2000,
        cpu_limit_milli: Some(2500),
        memory_bytes: 64 << 20,
        hugepages: BTreeMap::from([(2 << 20, 8 << 20)]),
    };
    cgroups.create("u", "c", &wanted, &cpus("0"), &[1]).unwrap();
    let now = |file: &str| fs::read_to_string(pod.join(file)).unwrap().trim().to_owned();
    for (file, value) in [
        ("cgroup.subtree_control", "+cpuset +memory +pids +hugetlb"),
        ("cpuset.cpus", "2-3"),
        ("cpu.weight", "200"),
        ("c/cpuset.cpus", "2-3"),
        ("c/cpuset.mems", "1"),
        ("c/cpu.weight", "200"),
        ("c/cpu.max", "250000 100000"),
        ("c/memory.max", "67108864"),
        ("pids.max", "4096"),
        ("c/hugetlb.2MB.max", "8388608"),
        ("c/hugetlb.2MB.rsvd.max", "8388608"),
    ] {
        assert_eq!(now(file), value, "{file}");
    }
    let applied = cgroups.in_force("u", "c").unwrap();
    assert_eq!(
        (applied.cpus, applied.cpu_request_milli),
        (cpus("0-7"), 2000),
        "what is effective counts"
    );
    assert_eq!(applied.hugepages, wanted.hugepages);

    // v2 would kill what does not fit: it has to be asked, and asked for nothing else.
    let less = ContainerResources {
        memory_bytes: 1 << 19,
        ..resources("4", 10)
    };
    let error = cgroups
        .apply_resources("u", "c", &less, &cpus("0"), &[])
        .unwrap_err();
    assert!(
        matches!(
            error,
            CgroupError::MemoryInUse {
                used_bytes: 1_048_576,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        (now("c/memory.max"), now("c/cpuset.cpus")),
        ("67108864".to_owned(), "2-3".to_owned())
    );
    cgroups
        .apply_resources("u", "c", &resources("", 10), &cpus("0"), &[])
        .unwrap();
    assert_eq!(
        (now("c/memory.max"), now("c/cpuset.mems"), now("c/cpu.max")),
        ("max".into(), String::new(), "max 100000".into())
    );
}

#[test]
fn v2_bounds_all_pods_and_asks_what_is_in_use_first() {
    let dir = tempfile::tempdir().unwrap();
    v2_tree(dir.path());
    let instance = dir.path().join("gantry/i");
    fs::write(instance.join("memory.stat"), "anon 7\ninactive_file 48576\n").unwrap();
    let cgroups = Cgroups::new(Hierarchy::v2(dir.path().to_owned()).unwrap(), "i");
    for (wanted, in_force) in [(1 << 30, 1 << 30), (1 << 20, (1_048_576 - 48_576) + (64 << 20))] {
        assert_eq!(cgroups.bound_pods(wanted).unwrap(), in_force);
        let written = fs::read_to_string(instance.join("memory.max")).unwrap();
        assert_eq!(written.trim(), in_force.to_string());
    }
    // Asked again when more is in use: it gets nothing more for that.
    fs::write(instance.join("memory.current"), (60 << 20).to_string()).unwrap();
    assert_eq!(cgroups.bound_pods(1 << 20).unwrap(), 1_000_000 + (64 << 20));
}

/// Memory and hugepages change together or not at all, and before any CPU.
#[test]
fn hugepages_that_are_refused_leave_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let pod = v2_tree(dir.path());
    let cgroups = Cgroups::new(Hierarchy::v2(dir.path().to_owned()).unwrap(), "i");
    let want = |list: &str, memory_bytes, pages: &[(u64, u64)]| ContainerResources {
        memory_bytes,
        hugepages: pages.iter().copied().collect(),
        ..resources(list, 100)
    };
    let before = want("2-3", 64 << 20, &[(2 << 20, 8 << 20)]);
    cgroups.create("u", "c", &before, &cpus("0"), &[]).unwrap();
    let now = |file: &str| {
        fs::read_to_string(pod.join("c").join(file))
            .unwrap()
            .trim()
            .to_owned()
    };
    // The second of the two files takes nothing: a directory is in its place.
    let reserved = pod.join("c/hugetlb.2MB.rsvd.max");
    fs::remove_file(&reserved).unwrap();
    fs::create_dir(&reserved).unwrap();
    let less = want("2", 32 << 20, &[(2 << 20, 2 << 20)]);
    cgroups
        .apply_resources("u", "c", &less, &cpus("0"), &[])
        .unwrap_err();
    let other_size = want("2", 32 << 20, &[(1 << 30, 1 << 30)]);
    let error = cgroups
        .apply_resources("u", "c", &other_size, &cpus("0"), &[])
        .unwrap_err();
    assert!(
        matches!(error, CgroupError::NoPageSize { page_bytes } if page_bytes == 1 << 30),
        "{error}"
    );
    assert_eq!(
        (now("memory.max"), now("hugetlb.2MB.max"), now("cpuset.cpus")),
        ("67108864".into(), "8388608".into(), "2-3".into())
    );
}

#[test]
fn a_v2_node_without_some_controllers_does_without() {
    let dir = tempfile::tempdir().unwrap();
    let pod = v2_tree(dir.path());
    fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
    fs::remove_file(pod.join("pids.max")).unwrap();
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        fs::remove_file(pod.join("c").join(file)).unwrap();
    }
    let cgroups = Cgroups::new(Hierarchy::v2(dir.path().to_owned()).unwrap(), "i");
    let mut wanted = resources("2", 100);
    cgroups.create("u", "c", &wanted, &cpus("0"), &[]).unwrap();
    assert!(cgroups.in_force("u", "c").unwrap().hugepages.is_empty());
    wanted.hugepages.insert(2 << 20, 8 << 20);
    let error = cgroups.create("u", "c", &wanted, &cpus("0"), &[]).unwrap_err();
    assert!(
        matches!(
            error,
            CgroupError::NoController {
                controller: "hugetlb"
            }
        ),
        "{error}"
    );
}
