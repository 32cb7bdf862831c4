//! Containers for real: shim, libcontainer, cgroups, exec. Needs root, a static busybox and cgroups.

mod runtime_support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gantry_nodeagent::runtime::{
    BindMount, ContainerUser, PodDir, RuntimeDir, RuntimeError, ShimHandle, purge,
};
use gantry_nodeagent_api::{EndReason, Security};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_support::{AGENT, PATIENCE, alive, exit_on_record, logged, node, until};

#[test]
fn an_exit_is_told_and_recorded_and_the_next_attempt_starts() {
    let Some(node) = node() else { return };
    let pod = node.pod("a");
    let shim = node.shim(&pod);
    let mut events = shim.events().unwrap();
    let mut start = node.sh(&pod, "a", "web", "echo out; echo err >&2; hostname; exit 7");
    let started = shim.start_container(&start).unwrap();
    assert!(started.running());
    assert_eq!(events.wait().unwrap(), started);
    let ended = events.wait().unwrap();
    assert_eq!(ended.exit.clone().unwrap().code, 7);
    assert_eq!(exit_on_record(&pod, "web"), ended);
    let mut lines: Vec<String> = logged(&start).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["a-pod", "err", "out"]);

    let again = shim.start_container(&start).unwrap_err();
    assert!(again.to_string().contains("attempt 0"), "{again}");
    start.attempt = 1;
    start.argv[2] = "kill -9 $$; sleep 100".to_owned();
    assert_eq!(shim.start_container(&start).unwrap().attempt, 1);
    // A first process of a pid namespace is immune to its own signals.
    shim.signal("web", nix::libc::SIGKILL).unwrap();
    assert_eq!(events.wait().unwrap().attempt, 1);
    assert_eq!(events.wait().unwrap().exit.unwrap().code, 137);
    shim.shutdown().unwrap();
    assert!(matches!(events.wait(), Err(RuntimeError::ShimGone { .. })));
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let Some(node) = node() else { return };
    let pod = node.pod("f");
    let shim = node.shim(&pod);
    let mut start = node.sh(&pod, "f", "web", "true");
    start.argv = vec!["/bin/not-there".to_owned()];
    let ended = shim.start_container(&start).unwrap();
    let exit = ended.exit.clone().unwrap();
    assert_eq!((exit.code, exit.reason), (128, Some(EndReason::StartError)));
    assert!(exit.message.contains("/bin/not-there"), "{exit:?}");
    assert_eq!(exit_on_record(&pod, "web"), ended);
    until("nothing runs", || {
        node.cgroups.pids_of_pod("f").unwrap().is_empty().then_some(())
    });

    let mut start = node.sh(&pod, "f", "web", "true");
    start.security.capabilities = vec!["FLY".to_owned()];
    start.attempt = 1;
    let error = shim.start_container(&start).unwrap_err().to_string();
    assert!(error.contains("`FLY`") && error.contains("web"), "{error}");

    // The kernel would leave it root, and the shim of the pod's other containers goes on.
    for edit in [
        (|user| user.uid = u32::MAX) as fn(&mut ContainerUser),
        |user| user.gid = u32::MAX,
        |user| user.additional_gids = vec![1 << 31],
    ] {
        let mut start = node.sh(&pod, "f", "web", "true");
        edit(&mut start.user);
        start.attempt = 1;
        let error = shim.start_container(&start).unwrap_err().to_string();
        assert!(error.contains("is no user or group"), "{error}");
    }

    let mut start = node.sh(&pod, "f", "web", "true");
    fs::write(start.rootfs.join("bin/text"), "#!/bin/no-shell").unwrap();
    Command::new("chmod")
        .args(["+x"])
        .arg(start.rootfs.join("bin/text"))
        .status()
        .unwrap();
    start.argv = vec!["/bin/text".to_owned()];
    // That could not be made was no run.
    start.attempt = 1;
    let ended = shim.start_container(&start).unwrap();
    assert_eq!(ended.before.map(|before| before.attempt), Some(0));
    let exit = ended.exit.unwrap();
    assert!(
        exit.message.contains("cannot run `/bin/text`: No such file"),
        "{exit:?}"
    );
    shim.shutdown().unwrap();
}

#[test]
fn the_container_sees_what_it_was_given_and_no_more() {
    let Some(node) = node() else { return };
    let pod = node.pod("s");
    let shim = node.shim(&pod);
    let given = pod.path().join("given");
    fs::write(&given, "content\n").unwrap();
    let script = "id; cat /etc/given; echo X=$X; pwd; grep -E 'CapEff|CapAmb|NoNewPrivs' /proc/self/status; \
                  echo no > /etc/given; echo no > /etc/new; ls /sys/fs/cgroup /proc/kcore -l; echo /dev/*; exit 0";
    let mut start = node.sh(&pod, "s", "web", script);
    start.user = ContainerUser {
        uid: 1000,
        gid: 1001,
        additional_gids: vec![7],
    };
    start.env = vec![("X".to_owned(), "1".to_owned()), ("X".to_owned(), "2".to_owned())];
    start.cwd = "/tmp".to_owned();
    start.security = Security {
        capabilities: vec!["NET_BIND_SERVICE".to_owned()],
        read_only_root: true,
        ..Security::default()
    };
    start.mounts = vec![BindMount {
        source: given,
        target: "/etc/given".into(),
        read_only: true,
    }];
    // Its environment, which may have Secrets, is for root only, also where an earlier version wrote it for everybody.
    let description = pod.path().join("c/web/config.json");
    fs::create_dir_all(description.parent().unwrap()).unwrap();
    fs::write(&description, "").unwrap();
    fs::set_permissions(&description, Permissions::from_mode(0o644)).unwrap();
    shim.start_container(&start).unwrap();
    assert_eq!(
        fs::metadata(&description).unwrap().permissions().mode() & 0o777,
        0o600
    );
    exit_on_record(&pod, "web");
    let said = logged(&start);
    for wanted in [
        "uid=1000 gid=1001 groups=7",
        "content",
        "X=2",
        "/tmp",
        "CapEff:\t0000000000000400",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(
        said.contains("CapAmb:\t0000000000000400") && said.contains("NoNewPrivs:\t1"),
        "{said}"
    );
    assert_eq!(
        said.matches("Read-only file system").count() + said.matches("Permission denied").count(),
        2,
        "{said}"
    );
    assert!(said.contains("/dev/null") && !said.contains("/dev/vda"), "{said}");
    shim.shutdown().unwrap();
}

#[test]
fn a_user_plane_gets_its_tunnel_and_a_privileged_container_what_its_shim_has() {
    let Some(node) = node() else { return };
    let pod = node.pod("c");
    let shim = node.shim(&pod);
    let script = "grep CapEff /proc/self/status; ls -l /dev/net/tun; echo x > /dev/net/tun";
    let mut plane = node.sh(&pod, "c", "plane", script);
    plane.security.capabilities = vec!["NET_ADMIN".to_owned()];
    let mut plain = node.sh(&pod, "c", "plain", script);
    plain.security.capabilities = vec!["MKNOD".to_owned()];
    let mut all = node.sh(&pod, "c", "all", script);
    all.security.privileged = true;
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    for (start, capabilities, device) in [
        (&plane, "0000000000001000", true),
        (&plain, "0000000008000000", false),
        (&all, own, true),
    ] {
        shim.start_container(start).unwrap();
        exit_on_record(&pod, &start.name);
        let said = logged(start);
        assert!(
            said.contains(&format!("CapEff:\t{capabilities}")),
            "{}: {said}",
            start.name
        );
        if fs::exists("/dev/net/tun").unwrap() {
            assert_eq!(said.contains("10, 200"), device, "{}: {said}", start.name);
            // The device opens; what is written to it is no packet.
            assert!(
                !device || !said.contains("Operation not permitted"),
                "{}: {said}",
                start.name
            );
        }
    }
}

#[test]
fn a_privileged_container_has_the_devices_of_its_host_and_others_do_not() {
    let Some(node) = node() else { return };
    // Where the host's own root cannot open one, nothing can be shown with it.
    let all = ["kmsg", "loop0", "loop-control", "vda", "fuse", "kvm"].map(|name| format!("/dev/{name}"));
    let devices: Vec<&String> = all.iter().filter(|path| fs::File::open(path).is_ok()).collect();
    assert!(!devices.is_empty(), "this host has none of {all:?}");
    let mut script: String = devices
        .iter()
        .map(|path| format!("ls -ln {path}; (: < {path}) && echo opens {path}; "))
        .collect();
    // `/dev/kmsg` again.
    script += "/bin/busybox mknod /dev/made c 1 11 && echo made && (: < /dev/made) && echo opens what it made; \
               cat /dev/net/given; ls /dev/console; exit 0";
    let pod = node.pod("v");
    let shim = node.shim(&pod);
    // A volume stays as it is, also where the host has a node (`/dev/net/tun`).
    let volume = pod.path().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("given"), "content\n").unwrap();
    let mut all = node.sh(&pod, "v", "all", &script);
    all.security.privileged = true;
    let mut plain = node.sh(&pod, "v", "plain", &script);
    plain.security.root_capabilities = vec!["MKNOD".to_owned()];
    node.cgroups.guard_devices("v", "plain", false).unwrap();
    for start in [&mut all, &mut plain] {
        start.mounts = vec![BindMount {
            source: volume.clone(),
            target: "/dev/net".into(),
            read_only: false,
        }];
    }
    let said = |start| {
        shim.start_container(start).unwrap();
        exit_on_record(&pod, &start.name);
        logged(start)
    };
    let (by_all, by_plain) = (said(&all), said(&plain));
    for path in devices {
        let number = fs::metadata(path).unwrap().rdev();
        let number = format!("{:3}, {:3} ", nix::libc::major(number), nix::libc::minor(number));
        let there = by_all.contains(&number) && by_all.contains(&format!("opens {path}"));
        assert!(there, "{path} {number}: {by_all}");
        assert!(!by_plain.contains(&format!("opens {path}")), "{path}: {by_plain}");
    }
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 1);
    for (said, made) in [(&by_all, true), (&by_plain, false)] {
        assert!(said.contains("made\n"), "{said}");
        assert_eq!(said.contains("opens what it made"), made, "{said}");
        assert!(
            said.contains("content") && said.contains("/dev/console: No such file"),
            "{said}"
        );
    }
}

#[test]
fn nothing_happens_to_a_container_when_its_maker_goes() {
    let Some(node) = node() else { return };
    let pod = node.pod("g");
    // The maker is a process of its own that ends; this one connects later, like a new agent.
    let make = || {
        let mut maker = Command::new(AGENT);
        maker
            .arg("shim")
            .arg("--dir")
            .arg(pod.path())
            .stdout(Stdio::null())
            .output()
            .unwrap()
    };
    let made = make();
    assert!(made.status.success(), "{made:?}");
    let second = make();
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("another shim"));
    let shim = ShimHandle::connect(&pod).unwrap();
    let start = node.sh(&pod, "g", "web", "sleep 0.2; exit 3");
    let state = shim.start_container(&start).unwrap();
    let shim_pid = shim.status().unwrap().pid;
    drop(shim);
    assert_eq!(exit_on_record(&pod, "web").exit.unwrap().code, 3);
    assert!(!alive(state.pid));
    let shim = ShimHandle::connect(&pod).unwrap();
    assert_eq!(shim.status().unwrap().pid, shim_pid);
    shim.shutdown().unwrap();
    until("the shim is gone, and no zombie", || {
        (!fs::exists(format!("/proc/{shim_pid}")).unwrap()).then_some(())
    });
    assert!(matches!(
        ShimHandle::connect(&pod),
        Err(RuntimeError::ShimGone { .. })
    ));
}

#[test]
fn a_disk_that_takes_nothing_ends_no_container() {
    let Some(node) = node() else { return };
    let pod = node.pod("d");
    let shim = node.shim(&pod);
    let other = node.sh(&pod, "d", "other", "sleep 1000");
    let other = shim.start_container(&other).unwrap();
    shim.start_container(&node.sh(&pod, "d", "web", "sleep 1000"))
        .unwrap();
    let mut events = shim.events().unwrap();
    // Where the record should go there is nothing any more.
    fs::remove_dir_all(pod.path().join("c/web")).unwrap();
    shim.signal("web", nix::libc::SIGKILL).unwrap();
    let ended = loop {
        let state = events.wait().unwrap();
        if !state.running() {
            break state;
        }
    };
    assert_eq!(
        (ended.name.as_str(), ended.exit.clone().unwrap().code),
        ("web", 137)
    );
    assert_eq!(shim.status().unwrap().containers, [other, ended]);
    let mut evil = node.sh(&pod, "d", "web", "true");
    evil.name = "../web".to_owned();
    assert!(
        shim.start_container(&evil)
            .unwrap_err()
            .to_string()
            .contains("no container name")
    );
}

#[test]
fn containers_die_with_a_killed_shim() {
    let Some(node) = node() else { return };
    let pod = node.pod("k");
    let shim = node.shim(&pod);
    let start = node.sh(&pod, "k", "web", "sleep 1000 & sleep 1000");
    let state = shim.start_container(&start).unwrap();
    let mut events = shim.events().unwrap();
    assert_eq!(events.wait().unwrap(), state);
    let pid = shim.status().unwrap().pid;
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert!(matches!(events.wait(), Err(RuntimeError::ShimGone { .. })));
    until("the container is dead", || {
        node.cgroups.pids_of_pod("k").unwrap().is_empty().then_some(())
    });
    assert!(
        pod.states().unwrap()[0].running(),
        "nobody was there to record the end"
    );
    // A new shim starts in the same place, and the record says what happened.
    let shim = node.shim(&pod);
    assert_eq!(
        shim.status().unwrap().containers[0].exit.clone().unwrap().code,
        137
    );
    let mut start = node.sh(&pod, "k", "web", "exit 0");
    start.attempt = 1;
    shim.start_container(&start).unwrap();
    assert_eq!(until("exit", || pod.states().unwrap()[0].exit.clone()).code, 0);
}

#[test]
fn a_container_that_writes_without_end_holds_up_nobody() {
    let Some(node) = node() else { return };
    let pod = node.pod("y");
    let shim = node.shim(&pod);
    let loud = node.sh(&pod, "y", "loud", "yes & yes >&2");
    shim.start_container(&loud).unwrap();
    until("it is loud", || (!logged(&loud).is_empty()).then_some(()));
    shim.start_container(&node.sh(&pod, "y", "quiet", "exit 4"))
        .unwrap();
    assert_eq!(exit_on_record(&pod, "quiet").exit.unwrap().code, 4);
    assert_eq!(shim.status().unwrap().containers.len(), 2);
    shim.signal("loud", nix::libc::SIGKILL).unwrap();
    assert_eq!(exit_on_record(&pod, "loud").exit.unwrap().code, 137);
    shim.shutdown().unwrap();
}

#[test]
fn many_pods_come_and_go_without_a_trace() {
    let Some(node) = node() else { return };
    let mut shims = Vec::new();
    let mut starting = Duration::ZERO;
    for number in 0..20 {
        let uid = format!("m{number}");
        let pod = node.pod(&uid);
        let shim = node.shim(&pod);
        let start = node.sh(&pod, &uid, "web", "echo up; exec sleep 1000");
        let before = Instant::now();
        let pid = shim.start_container(&start).unwrap().pid;
        starting += before.elapsed();
        shims.push((uid, pod, shim, pid));
    }
    let before = Instant::now();
    assert!(node.exec(&shims[0].1, "web", "true").status.success());
    eprintln!(
        "container start {:?} (mean), exec {:?}",
        starting / 20,
        before.elapsed()
    );
    eprintln!(
        "memory of one of 20 shims: {}",
        memory(shims[10].2.status().unwrap().pid)
    );
    let pids: Vec<u32> = shims
        .iter()
        .flat_map(|(_, _, shim, pid)| [shim.status().unwrap().pid, *pid])
        .collect();
    for (uid, pod, shim, _) in shims {
        shim.signal("web", nix::libc::SIGKILL).unwrap();
        assert_eq!(exit_on_record(&pod, "web").exit.unwrap().code, 137);
        shim.shutdown().unwrap();
        node.cgroups.remove_pod(&uid, PATIENCE).unwrap();
        pod.remove().unwrap();
    }
    until("no process", || {
        pids.iter()
            .all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap())
            .then_some(())
    });
    nothing_left(&node);
}

#[test]
fn a_purge_leaves_nothing_and_may_be_repeated() {
    let Some(node) = node() else { return };
    let mut pids = Vec::new();
    for uid in ["p1", "p2"] {
        let pod = node.pod(uid);
        let start = node.sh(&pod, uid, "web", "sleep 1000 & sleep 1000");
        pids.push(node.shim(&pod).start_container(&start).unwrap().pid);
    }
    // A mount in a mount, as a volume below a root file system is.
    let pod: PodDir = RuntimeDir::new(node.dir.path()).pod("p1");
    for dir in ["rootfs/tmp", "rootfs/tmp/inner"] {
        let path = pod.path().join(dir);
        fs::create_dir_all(&path).unwrap();
        nix::mount::mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    }
    let report = purge(node.dir.path(), &node.cgroups, PATIENCE).unwrap();
    assert_eq!((report.shims, report.pods, report.mounts), (2, 2, 2));
    assert!(pids.iter().all(|pid| !alive(*pid)));
    nothing_left(&node);
    let report = purge(node.dir.path(), &node.cgroups, PATIENCE).unwrap();
    assert_eq!((report.shims, report.pods, report.mounts), (0, 0, 0));
}

fn nothing_left(node: &runtime_support::Node) {
    assert_eq!(
        RuntimeDir::new(node.dir.path()).pods().unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(node.cgroups.pods().unwrap(), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(node.dir.path().to_str().unwrap()), "{mounts}");
}

/// Proportional and private memory (`proc_pid_smaps(5)`).
fn memory(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let rows = text.lines().filter(|l| {
        ["Pss:", "Pss_Anon:", "Private_Dirty:"]
            .iter()
            .any(|n| l.starts_with(n))
    });
    rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}
