//! Both sides on the loopback: what is sent comes back, and what does not is lost.

use std::net::UdpSocket;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const DEVICES: &str = "001010000000001,127.0.94.1\n001010000000002,127.0.94.2\n";
const PATIENCE: Duration = Duration::from_secs(20);

struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lab-traffic"))
}

fn send(to: u16) -> serde_json::Value {
    let place = tempfile::tempdir().unwrap();
    let devices = place.path().join("devices.csv");
    std::fs::write(&devices, DEVICES).unwrap();
    let output = command()
        .args(["send", "--rate", "500", "--packets", "501", "--wait", "1"])
        .args(["--to", &format!("127.0.0.1:{to}"), "--devices"])
        .arg(&devices)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn packets_come_back() {
    let port = free_port();
    let pages = free_port().to_string();
    let mut echo = command();
    echo.args([
        "echo",
        "--address",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--metrics-port",
        &pages,
    ]);
    let _echo = Echo(echo.spawn().unwrap());
    let begun = Instant::now();
    while UdpSocket::bind(("127.0.0.1", port)).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the echo is not there");
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = send(port);
    let counts = [
        "sent",
        "received",
        "lost",
        "duplicated",
        "reordered",
        "corrupted",
        "foreign",
    ];
    assert_eq!(
        counts.map(|count| report[count].as_u64().unwrap()),
        [501, 501, 0, 0, 0, 0, 0],
        "{report}"
    );
}

#[test]
fn without_an_echo_all_are_lost() {
    let report = send(free_port());
    assert_eq!((&report["received"], &report["devices"]), (&0.into(), &2.into()));
    assert_eq!(report["sent"], report["lost"]);
}
