//! Ways out of a container, tried by a program in one: all are denied, and each succeeds when its protection is switched off (so the
//! attempt is real). `ESCAPES_TABLE=1` prints the table. The binary that enters is tried in `runtime_sealed.rs`, links in volumes in
//! `runtime_volumes.rs`.

#[path = "escapes/attempts.rs"]
mod attempts;
mod runtime_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use attempts::{ALL, Attempt};
use gantry_nodeagent::runtime::{ContainerStart, ContainerUser, PodDir, ShimHandle};
use gantry_nodeagent_api::Security;
use runtime_support::{AGENT, Node, exit_on_record, libraries_of, logged, node};

/// What a container of a pod may do that says nothing, as `baseline` lets through.
const BASELINE: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Root with the usual capabilities.
    Baseline,
    /// An ordinary user without any, as every package of the catalog.
    Restricted,
    /// Root of a privileged container in a pod with ids of its own.
    Mapped,
}

/// In the container: tries what the environment names, each in a process of its own.
#[test]
fn attempt_in_container() {
    let Ok(names) = std::env::var("GANTRY_ATTEMPTS") else {
        return;
    };
    for name in names.split(',') {
        let attempt = ALL.iter().find(|a| a.name == name).unwrap();
        // SAFETY: the child runs system calls, prints and ends; no lock of this process is held.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => {
                let ended = nix::sys::wait::waitpid(child, None).unwrap();
                if !matches!(ended, nix::sys::wait::WaitStatus::Exited(..)) {
                    println!("@{name} denied {ended:?}");
                }
            }
            nix::unistd::ForkResult::Child => {
                let line = match (attempt.run)() {
                    Ok(how) => format!("@{name} ESCAPED {how}\n"),
                    Err(e) => format!("@{name} denied {e}\n"),
                };
                let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
                std::process::exit(0);
            }
        }
    }
}

/// Runs attempts in one container; by name what became of them.
fn attempt(node: &Node, level: Level, off: &str, names: &[&'static str]) -> BTreeMap<String, String> {
    let uid = format!("{level:?}{}", off.replace(',', "-")).to_lowercase();
    let pod = node.pod(&uid);
    fill(&pod);
    let mut shim = Command::new(AGENT);
    shim.arg("shim").arg("--dir").arg(pod.path());
    shim.env_clear()
        .env("GANTRY_TEST_UNGUARDED", off)
        .stdout(Stdio::null());
    let started = shim.output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let mut start = request(node, &pod, &uid, level, names);
    if level == Level::Mapped {
        // Not the file that it is linked to.
        let attempt = pod.path().join("rootfs/bin/attempt");
        fs::remove_file(&attempt).unwrap();
        fs::copy(std::env::current_exe().unwrap(), attempt).unwrap();
        node.own_ids(&pod, &uid, &mut start);
    }
    if !off.contains("devices") && level != Level::Mapped {
        node.cgroups.guard_devices(&uid, "web", false).unwrap();
    }
    ShimHandle::connect(&pod)
        .unwrap()
        .start_container(&start)
        .unwrap();
    exit_on_record(&pod, "web");
    let said = logged(&start);
    let outcome = |line: &str| {
        let (_, rest) = line.split_once('@')?;
        let (name, outcome) = rest.split_once(' ')?;
        Some((name.to_owned(), outcome.to_owned()))
    };
    let outcomes: BTreeMap<_, _> = said.lines().filter_map(outcome).collect();
    assert_eq!(outcomes.len(), names.len(), "{level:?} {off}: {said}");
    outcomes
}

/// This program, what it loads, and programs with privileges in their files.
fn fill(pod: &PodDir) {
    let root = pod.path().join("rootfs");
    let own = std::env::current_exe().unwrap();
    if fs::hard_link(&own, root.join("bin/attempt")).is_err() {
        fs::copy(&own, root.join("bin/attempt")).unwrap();
    }
    libraries_of(std::process::id(), &root);
    for name in ["setuid", "filecap"] {
        fs::copy("/bin/cat", root.join("bin").join(name)).unwrap();
    }
    fs::set_permissions(root.join("bin/setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    // `struct vfs_cap_data` of linux/capability.h, version 2, effective: CAP_SYS_ADMIN.
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend((1_u32 << 21).to_le_bytes());
    capability.extend([0; 12]);
    rustix::fs::setxattr(
        root.join("bin/filecap"),
        "security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(pod.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

fn request(node: &Node, pod: &PodDir, uid: &str, level: Level, names: &[&str]) -> ContainerStart {
    let mut start = node.sh(pod, uid, "web", "");
    start.argv = [
        "/bin/attempt",
        "--exact",
        "attempt_in_container",
        "--nocapture",
        "--test-threads=1",
    ]
    .map(str::to_owned)
    .to_vec();
    start.env = vec![
        ("GANTRY_ATTEMPTS".to_owned(), names.join(",")),
        ("GANTRY_POD".to_owned(), uid.to_owned()),
        ("GANTRY_DISK_OPENS".to_owned(), disk_opens(pod).to_string()),
    ];
    match level {
        Level::Baseline => {
            start.security = Security {
                root_capabilities: BASELINE.iter().map(|c| (*c).to_owned()).collect(),
                allow_privilege_escalation: true,
                ..Security::default()
            };
        }
        Level::Restricted => {
            start.user = ContainerUser {
                uid: 1000,
                gid: 1000,
                additional_gids: Vec::new(),
            };
        }
        Level::Mapped => start.security.privileged = true,
    }
    start
}

/// Whether root of the host may open its first disk.
fn disk_opens(pod: &PodDir) -> bool {
    let path = pod.path().join("disk");
    let path = path.to_str().unwrap();
    attempts::disk().is_ok_and(|disk| attempts::device(nix::libc::S_IFBLK, path, disk).is_ok())
}

/// Those that mean something at a level.
fn at(level: Level) -> Vec<&'static Attempt> {
    ALL.iter()
        .filter(|a| a.only_at.map_or(level != Level::Mapped, |only| only == level))
        .collect()
}

#[test]
fn nothing_gets_out() {
    let Some(node) = node() else { return };
    let mut tried = 0;
    let mut out = Vec::new();
    for level in [Level::Baseline, Level::Restricted, Level::Mapped] {
        let names: Vec<_> = at(level).iter().map(|a| a.name).collect();
        for (name, outcome) in attempt(&node, level, "", &names) {
            tried += 1;
            table(&[&format!("{level:?}"), kind(&name), &name, &outcome]);
            if !outcome.starts_with("denied") {
                out.push(format!("{level:?} {name}: {outcome}"));
            }
        }
    }
    assert!(out.is_empty(), "{out:#?}");
    let kinds: BTreeSet<_> = ALL.iter().map(|a| a.kind).collect();
    eprintln!("{tried} attempts of {} kinds, all denied", kinds.len());
    assert!(tried >= 60 && kinds.len() >= 20, "{tried} {kinds:?}");
}

#[test]
fn control_each_gets_out_without_its_protection() {
    let Some(node) = node() else { return };
    let mut by_protection: BTreeMap<(Level, &str), Vec<&'static str>> = BTreeMap::new();
    for attempt in ALL {
        by_protection
            .entry((attempt.only_at.unwrap_or(Level::Baseline), attempt.off))
            .or_default()
            .push(attempt.name);
    }
    let mut held = Vec::new();
    for ((level, off), names) in by_protection {
        for (name, outcome) in attempt(&node, level, off, &names) {
            table(&[&format!("without {off}"), kind(&name), &name, &outcome]);
            // What this kernel does not have cannot be shown to do harm.
            if !outcome.starts_with("ESCAPED") && !outcome.contains("not on this kernel") {
                held.push(format!("{name} without {off}: {outcome}"));
            }
        }
    }
    assert!(held.is_empty(), "these attempts would fail anyway: {held:#?}");
}

fn kind(name: &str) -> &'static str {
    ALL.iter().find(|a| a.name == name).map_or("", |a| a.kind)
}

fn table(row: &[&str]) {
    if std::env::var_os("ESCAPES_TABLE").is_some() {
        eprintln!("| {} |", row.join(" | "));
    }
}
