//! The command: what is wrong is told, before anything is made.

use std::process::Command;

#[test]
fn a_wrong_file_is_told_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("subscribers.csv");
    let with = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_lab-enb"))
            .args([
                "--mme",
                "127.0.0.1:9",
                "--address",
                "127.0.0.1",
                "--count",
                "2",
                "--subscribers",
            ])
            .arg(&file)
            .arg("--devices")
            .arg(place.path().join("devices.csv"))
            .args(more)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let run = |text: &str| with(text, &[]);
    let told = run("imsi,msisdn,k,opc\n1,2,3,4\n");
    assert!(
        told.contains("line 2, column 1: imsi must be 15 digits"),
        "{told}"
    );
    let told = run("imsi,msisdn,k,opc\n");
    assert!(told.contains("has 0 subscribers, fewer than"), "{told}");
    let told = with("", &["--fault", "noise"]);
    assert!(told.contains("faults are loss, duplicate,"), "{told}");
}
