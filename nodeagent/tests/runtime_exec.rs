//! Commands in running containers: `gantry-nodeagent exec`.

mod runtime_support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_nodeagent::runtime::ContainerUser;
use runtime_support::{AGENT, Node, node, until};

#[test]
fn commands_run_inside_and_their_exit_codes_come_out() {
    let Some(node) = node() else { return };
    commands(&node, false);
}

#[test]
fn commands_have_the_ids_of_their_pod() {
    let Some(node) = node() else { return };
    commands(&node, true);
}

fn commands(node: &Node, own_ids: bool) {
    let pod = node.pod("x");
    let shim = node.shim(&pod);
    let mut start = node.sh(&pod, "x", "web", "sleep 1000");
    start.env = vec![("GREETING".to_owned(), "hello".to_owned())];
    start.user = ContainerUser {
        uid: 5,
        gid: 6,
        additional_gids: vec![7],
    };
    let first = if own_ids {
        node.own_ids(&pod, "x", &mut start)
    } else {
        0
    };
    shim.start_container(&start).unwrap();
    let said = node.exec(
        &pod,
        "web",
        "echo $GREETING; hostname; id -u; id -G; cat /proc/1/comm; echo again >/dev/stdout; exit 42",
    );
    assert_eq!(said.status.code(), Some(42), "{said:?}");
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(text, "hello\na-pod\n5\n6 7\nsleep\nagain\n");
    assert_eq!(
        node.exec(&pod, "web", "kill -15 $$; sleep 5").status.code(),
        Some(143)
    );
    let none = node.exec(&pod, "other", "true");
    assert_eq!(none.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("`other` does not run"),
        "{none:?}"
    );
    let bad = Command::new(AGENT)
        .args(["exec", "--container", "web", "--pod-dir"])
        .arg(pod.path())
        .args(["--", "nothing"])
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&bad.stderr).contains("nothing"),
        "{bad:?}"
    );
    let others: Vec<u32> = node.cgroups.pids_of_pod("x").unwrap();
    let uids = fs::metadata(format!("/proc/{}", others[0])).unwrap();
    assert_eq!((uids.uid(), uids.gid()), (first + 5, first + 6));
    // A command dies with the process that carries it, at whatever step that is killed: probes that time out leave nothing.
    for delay_ms in 0..20 {
        let mut slow = Command::new(AGENT)
            .args(["exec", "--container", "web", "--pod-dir"])
            .arg(pod.path())
            .args(["--", "/bin/sleep", "1000"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        slow.kill().unwrap();
        slow.wait().unwrap();
    }
    until("they are gone", || {
        (node.cgroups.pids_of_pod("x").unwrap().len() == 1).then_some(())
    });
}

#[test]
fn a_command_may_have_a_terminal() {
    let Some(node) = node() else { return };
    let pod = node.pod("t");
    node.shim(&pod)
        .start_container(&node.sh(&pod, "t", "web", "sleep 1000"))
        .unwrap();
    let pty = nix::pty::openpty(None, None).unwrap();
    let side = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = Command::new(AGENT)
        .args(["exec", "--tty", "--container", "web", "--pod-dir"])
        .arg(pod.path())
        .args([
            "--",
            "/bin/sh",
            "-c",
            "echo $TERM > /dev/tty; cat /dev/tty; exit 9",
        ])
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn()
        .unwrap();
    let mut screen = fs::File::from(pty.master.try_clone().unwrap());
    let mut shown = String::new();
    // Typed text comes back twice: as echo of the terminal, and from cat. ^D ends cat.
    while !shown.contains("xterm-256color") {
        read_some(&mut screen, &mut shown);
    }
    screen.write_all(b"typed\n\x04").unwrap();
    while shown.matches("typed").count() < 2 {
        read_some(&mut screen, &mut shown);
    }
    assert_eq!(command.wait().unwrap().code(), Some(9));
}

fn read_some(from: &mut fs::File, into: &mut String) {
    let mut buffer = [0; 256];
    let count = from.read(&mut buffer).unwrap();
    into.push_str(&String::from_utf8_lossy(&buffer[..count]));
}
