//! The judge judged: faults are put between real devices and a network, and the report must have each of them, exactly.

mod network;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;

use gantry_lab_faults::Fault;
use network::{Network, plan};
use serde_json::Value;

const DEVICES: u8 = 6;
const AT_ONCE: usize = 3;
/// How often a run is tried at most: a machine that has no time loses and delays by itself.
const TRIES: usize = 4;

/// All but the one that devices must not notice.
fn cases() -> impl Iterator<Item = Fault> {
    Fault::ALL
        .into_iter()
        .filter(|fault| !fault.counted_in().is_empty())
}

/// What else of the report is not zero, and is no fault of its own.
fn follows(fault: Fault) -> &'static [&'static str] {
    match fault {
        Fault::Delay => &["/audio/reordered"],
        Fault::Wrong200 | Fault::WrongAutn => &["/registrations/failed", "/refreshes/failed"],
        Fault::DropBye => &["/retransmissions"],
        Fault::RtpOneWay => &["/audio/unheard"],
        _ => &[],
    }
}

/// All that is zero in a run without a fault.
const FAULTS: [&str; 28] = [
    "/audio/lost",
    "/audio/unheard",
    "/audio/doubled",
    "/audio/reordered",
    "/audio/foreign",
    "/audio/late",
    "/audio/without_call",
    "/audio/wrong_port",
    "/calls/failed",
    "/registrations/failed",
    "/refreshes/failed",
    "/messages/failed",
    "/undelivered",
    "/unchallenged",
    "/unnotified",
    "/without_identity",
    "/wrong_targets",
    "/wrong_texts",
    "/repeated_answers",
    "/unacknowledged",
    "/retransmissions",
    "/repeated_requests",
    "/repeated_responses",
    "/malformed",
    "/stray",
    "/not_authentic",
    "/leaked_keys",
    "/wrong_contacts",
];

fn subscribers() -> String {
    let mut lines = "imsi,msisdn,k,opc\n".to_owned();
    for n in 1..=DEVICES {
        writeln!(lines, "0010100000000{n:02},490{n:02},{n:032x},{:032x}", n * 3).unwrap();
    }
    lines
}

/// Devices at 127.1.`nth`.1 and after, in front of a network at 127.1.`nth`.100; how often the fault was done, and the report.
async fn run(nth: u8, fault: Fault, every: u64) -> (u64, Value) {
    let own = Ipv4Addr::new(127, 1, nth, 100);
    let network = Network::new(own, &subscribers(), plan(fault, every)).await;
    let goes = network.clone().start();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("subscribers.csv");
    std::fs::write(&file, subscribers()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-ue"));
    command.arg("--subscribers").arg(&file);
    command.args(["--p-cscf", &format!("{own}:5060"), "--first-address"]);
    command.arg(Ipv4Addr::new(127, 1, nth, 1).to_string());
    let options = "--domain ims.lab --rate 20 --seconds 13 --quiet-end 5 --refresh 5 --calls 2 --talk 2-3 --messages 1 --hold-every 2";
    command.args(options.split(' '));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    goes.abort();
    // Its sockets are free for another try.
    let _ = goes.await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (
        network.injected(),
        serde_json::from_slice(&output.stdout).unwrap(),
    )
}

fn count(report: &Value, path: &str) -> u64 {
    // A map has only methods that there were.
    report.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn judge(fault: Fault, injected: u64, report: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ensure = |good: bool, told: String| {
        if !good {
            wrong.push(format!("{fault} {told}"));
        }
    };
    ensure(injected > 0, "was never injected".to_owned());
    for path in fault.counted_in() {
        let counted = count(report, path);
        ensure(
            counted == injected,
            format!("{path}: {injected} injected, {counted} counted"),
        );
    }
    let named = |path| fault.counted_in().contains(path) || follows(fault).contains(path);
    for path in FAULTS.iter().filter(|path| !named(path)) {
        let counted = count(report, path);
        ensure(counted == 0, format!("{path}: {counted} that nobody injected"));
    }
    for what in ["/calls", "/messages"] {
        let of = |part| count(report, &format!("{what}/{part}"));
        ensure(
            of("done") == of("begun") && of("done") > 0,
            format!("{what}: {}", report[&what[1..]]),
        );
    }
    let streams = count(report, "/calls/done");
    match fault {
        Fault::RtpOneWay => ensure(
            count(report, "/audio/unheard") == streams,
            format!("{streams} calls, and others are unheard"),
        ),
        Fault::DropBye => ensure(
            count(report, "/retransmissions") == injected,
            "is not all that was sent again".to_owned(),
        ),
        Fault::Delay => ensure(
            count(report, "/audio/slowest_ms") >= 200,
            "is not seen in the slowest".to_owned(),
        ),
        Fault::Wrong200 | Fault::WrongAutn => {
            let failed = count(report, "/registrations/failed") + count(report, "/refreshes/failed");
            ensure(
                failed == injected,
                format!("{injected} injected, {failed} registrations failed"),
            );
        }
        _ => {}
    }
    wrong
}

async fn judged(nth: u8, fault: Fault) -> Vec<String> {
    let (injected, report) = run(nth, fault, fault.usual_every()).await;
    judge(fault, injected, &report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_counted_exactly_and_no_other() {
    let all: Vec<(u8, Fault)> = (1..).zip(cases()).collect();
    for some in all.chunks(AT_ONCE) {
        let runs = some.iter().map(|(nth, fault)| tokio::spawn(judged(*nth, *fault)));
        let runs: Vec<_> = runs.collect();
        for ((nth, fault), run) in some.iter().zip(runs) {
            let mut wrong = run.await.unwrap();
            for _ in 1..TRIES {
                if wrong.is_empty() {
                    break;
                }
                eprintln!("once more: {}", wrong.join("; "));
                wrong = judged(*nth, *fault).await;
            }
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }
}

/// Where no BYE ever arrives, no call is done, and what both ends sent and heard still counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_cannot_be_ended_are_never_done() {
    let (injected, report) = run(20, Fault::DropBye, 1).await;
    assert!(injected > 0);
    let calls = &report["calls"];
    assert_eq!(calls["done"], 0, "{calls}");
    let again = count(&report, "/retransmissions_by_method/BYE");
    assert_eq!(calls["begun"], injected - again, "each has its first BYE");
    assert_eq!(calls["open"], calls["begun"]);
}
