//! The command: what is wrong is told, and devices that nobody answers are no success.

use std::process::Command;

const SUBSCRIBERS: &str = "imsi,msisdn,k,opc\n\
    001010000000001,49001,01010101010101010101010101010101,02020202020202020202020202020202\n";

fn run(subscribers: &str, more: &[&str]) -> (bool, String, String) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("subscribers.csv");
    std::fs::write(&file, subscribers).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-ue"));
    command.arg("--subscribers").arg(&file);
    command.args([
        "--domain",
        "ims.lab",
        "--p-cscf",
        "127.0.0.1:9",
        "--first-address",
        "127.0.93.1",
    ]);
    let output = command
        .args(["--seconds", "2", "--quiet-end", "1"])
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_wrong_file_is_told_with_its_place() {
    let (good, _, told) = run("imsi,msisdn,k,opc\n1,2,3,4\n", &[]);
    assert!(
        !good && told.contains("line 2, column 1: imsi must be 15 digits"),
        "{told}"
    );
    let (good, _, told) = run(SUBSCRIBERS, &["--count", "2"]);
    assert!(
        !good && told.contains("has 1 subscribers, fewer than --count 2"),
        "{told}"
    );
}

#[test]
fn silence_is_reported_as_what_it_is() {
    let (good, report, told) = run(SUBSCRIBERS, &[]);
    assert!(good, "{told}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let registrations = &report["registrations"];
    assert_eq!(
        (
            &registrations["begun"],
            &registrations["done"],
            &registrations["open"]
        ),
        (&1.into(), &0.into(), &1.into())
    );
    assert_eq!(
        report["retransmissions"], 2,
        "after half a second, and a second later"
    );
}

#[test]
fn devices_may_be_those_of_a_file() {
    let place = tempfile::tempdir().unwrap();
    let devices = place.path().join("devices.csv");
    let with = |text: &str| {
        std::fs::write(&devices, text).unwrap();
        run(SUBSCRIBERS, &["--devices", devices.to_str().unwrap()])
    };
    let (good, report, told) = with("001010000000001,127.0.93.7\n");
    assert!(good, "{told}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["registrations"]["begun"], 1);
    let (good, _, told) = with("001010000000002,127.0.93.7\n");
    assert!(!good && told.contains("is no subscriber"), "{told}");
    let (good, _, told) = with("001010000000001\n");
    assert!(
        !good && told.contains("devices.csv") && told.contains("line 1 is no"),
        "{told}"
    );
}
