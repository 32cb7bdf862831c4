//! A container is as on a fresh machine, whoever started the agent and however; so is a command in it.

mod runtime_support;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use gantry_nodeagent::runtime::{PodDir, ShimHandle};
use nix::libc;
use runtime_support::{AGENT, Node, exit_on_record, logged, node};

/// Tells all that a process can have from its parent, one thing a line.
const TELL: &str = "cd /proc/$$; grep -E '^(Groups|Cpus_allowed_list|SigBlk|SigIgn|Umask|Mems_allowed_list)' status; \
    grep -E 'open files|core file|stack' limits; cat oom_score_adj coredump_filter; \
    read all < stat; set -- ${all#*) }; echo nice ${17} class ${39}; ls fd; echo $STRANGE";

/// A starter with habits: one CPU, nice, batch, a group, signals blocked and ignored, limits, a umask, an open file, a variable.
fn strange(command: &mut Command) {
    let file = File::open("/etc/passwd").unwrap();
    let fd = file.as_raw_fd();
    command.env("STRANGE", "strange").env("LISTEN_FDS", "5");
    // SAFETY: system calls on plain data only.
    unsafe {
        command.pre_exec(move || {
            let _kept = &file;
            let one = [1_u64; 1];
            let limit = |soft| libc::rlimit {
                rlim_cur: soft,
                rlim_max: libc::RLIM_INFINITY,
            };
            libc::sched_setaffinity(0, 8, one.as_ptr().cast());
            libc::setgroups(1, &4242);
            libc::setpriority(libc::PRIO_PROCESS, 0, 7);
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &libc::sched_param { sched_priority: 0 });
            libc::umask(0o077);
            libc::setrlimit(libc::RLIMIT_CORE, &limit(4096));
            libc::setrlimit(libc::RLIMIT_STACK, &limit(1 << 20));
            let mut files = limit(0);
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut files);
            files.rlim_cur = 200;
            libc::setrlimit(libc::RLIMIT_NOFILE, &files);
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, libc::SIGUSR2);
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::dup2(fd, 9);
            std::fs::write("/proc/self/oom_score_adj", "333")?;
            std::fs::write("/proc/self/coredump_filter", "1")?;
            io::Result::Ok(())
        });
    }
}

/// What a container says of itself, and a command in it, when strangers start both.
fn told(node: &Node, uid: &str, unguarded: &str) -> [String; 2] {
    let pod = node.pod(uid);
    let mut shim = Command::new(AGENT);
    shim.arg("shim").arg("--dir").arg(pod.path());
    shim.env("GANTRY_TEST_UNGUARDED", unguarded).stdout(Stdio::null());
    strange(&mut shim);
    assert!(shim.output().unwrap().status.success());
    let shim = ShimHandle::connect(&pod).unwrap();
    // Where nobody may go below 0, the shim keeps that.
    let score =
        std::fs::read_to_string(format!("/proc/{}/oom_score_adj", shim.status().unwrap().pid)).unwrap();
    assert!(["-998", "0"].contains(&score.trim()), "{score}");
    let mut start = node.sh(&pod, uid, "web", TELL);
    start.oom_score_adj = 512;
    shim.start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    let mut sleeper = node.sh(&pod, uid, "sleeper", "sleep 1000");
    sleeper.attempt = 1;
    sleeper.oom_score_adj = 512;
    shim.start_container(&sleeper).unwrap();
    [logged(&start), exec(&pod, unguarded)]
}

fn exec(pod: &PodDir, unguarded: &str) -> String {
    let mut exec = Command::new(AGENT);
    exec.args(["exec", "--container", "sleeper", "--pod-dir"])
        .arg(pod.path());
    exec.args(["--", "/bin/sh", "-c", TELL])
        .env("GANTRY_TEST_UNGUARDED", unguarded);
    strange(&mut exec);
    let done = exec.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn words(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn nothing_of_the_starter_comes_through() {
    let Some(node) = node() else { return };
    for said in told(&node, "fresh", "") {
        let lines = words(&said);
        let has = |line: &str| assert!(lines.iter().any(|l| l.starts_with(line)), "{line}: {said}");
        has("Cpus_allowed_list: 0-1");
        has("SigBlk: 0000000000000000");
        // A shell ignores SIGQUIT itself.
        has("SigIgn: 0000000000000004");
        has("Umask: 0022");
        has("Max open files 1024 ");
        has("Max core file size 0 ");
        has("Max stack size 8388608 ");
        has("nice 0 class 0");
        has("00000033");
        has("512");
        assert!(!said.contains("333") && !said.contains("strange"), "{said}");
        assert!(!lines.iter().any(|l| l == "9"), "{said}");
        assert!(lines.iter().any(|l| l == "Groups:"), "{said}");
    }
}

/// A row of a `limits` file: soft and hard.
fn limits_of<'a>(text: &'a str, row: &str) -> Vec<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(row));
    line.unwrap_or_else(|| panic!("{row}: {text}"))
        .split_whitespace()
        .take(2)
        .collect()
}

/// Whoever it runs as: the host's processes of that user have the other half.
#[test]
fn what_is_counted_for_a_user_is_half_the_hosts() {
    let Some(node) = node() else { return };
    let pod = node.pod("half");
    let start = node.sh(
        &pod,
        "half",
        "web",
        "cat /proc/self/limits; grep devpts /proc/mounts",
    );
    node.shim(&pod).start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    let (said, host) = (logged(&start), std::fs::read_to_string("/proc/1/limits").unwrap());
    for row in ["Max pending signals", "Max msgqueue size", "Max processes"] {
        let hard = limits_of(&host, row)[1];
        let expected = hard
            .parse::<u64>()
            .map_or(hard.to_owned(), |hard| (hard / 2).to_string());
        assert_eq!(limits_of(&said, row), [expected.as_str(); 2], "{row}: {said}");
    }
    assert!(said.contains("max=256"), "{said}");
}

#[test]
fn a_container_gets_the_open_files_that_it_asks_for() {
    let Some(node) = node() else { return };
    let pod = node.pod("files");
    let mut start = node.sh(&pod, "files", "web", TELL);
    start.open_files = Some(2000);
    node.shim(&pod).start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    let said = logged(&start);
    assert!(
        words(&said).iter().any(|l| l.starts_with("Max open files 2000 ")),
        "{said}"
    );
}

#[test]
fn control_without_care_the_starters_habits_come_through() {
    let Some(node) = node() else { return };
    let [said, _] = told(&node, "stale", "fresh-process");
    let lines = words(&said);
    for line in ["Umask: 0022", "Max open files 1024 ", "nice 0 class 0"] {
        assert!(!lines.iter().all(|l| l.starts_with(line)), "{line}: {said}");
    }
    assert!(
        said.contains("nice 7 class 3") && said.contains("4242") && said.contains("Max stack size"),
        "{said}"
    );
    assert!(
        !lines.iter().any(|l| l.starts_with("Max stack size 8388608 ")),
        "{said}"
    );
}
