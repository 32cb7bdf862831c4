//! CNI ADD of the real plugin into a fresh network namespace, against what any plugin must make: a veth, an address, a route.

#[path = "../tests/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use support::{Node, Pod, can_run, success};

/// Instance name: part of every link's and table's name, inside the bench's own namespace.
const INSTANCE: &str = "bench";

/// Numbers namespaces, so that none is ever used twice.
#[derive(Default)]
struct Names(RefCell<u32>);

impl Names {
    fn pod(&self, node: &Node) -> Pod {
        *self.0.borrow_mut() += 1;
        node.bare_pod(&format!("pod{}", self.0.borrow()))
    }
}

/// The time of `iterations` ADDs; DEL and the end of the namespaces are outside it.
fn adds(node: &Node, names: &Names, iterations: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..iterations {
        let pod = names.pod(node);
        let start = Instant::now();
        let output = node.command("ADD", &pod, json!({}));
        spent += start.elapsed();
        success(output);
        success(node.command("DEL", &pod, json!({})));
    }
    spent
}

/// The time of `iterations` runs of `ip` that make the same device by hand: one in the host's, one in the pod's namespace.
fn floors(node: &Node, names: &Names, iterations: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..iterations {
        let pod = names.pod(node);
        spent += floor(node, &pod);
        node.ns.run(|| batch("link del floor0\n"));
    }
    spent
}

fn floor(node: &Node, pod: &Pod) -> Duration {
    // `ip` takes a namespace by process or by name; it sees this one as a file of ours.
    let file = std::fs::File::open(pod.ns.path()).expect("the namespace was made a moment ago");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let outside = format!(
        "link add floor0 type veth peer name eth0 netns /proc/{}/fd/{fd}\n\
         link set floor0 up\n\
         route add 10.85.0.254/32 dev floor0\n",
        std::process::id()
    );
    let inside = "address add 10.85.0.254/32 dev eth0\n\
                  link set eth0 up\n\
                  route add 10.85.0.1/32 dev eth0\n\
                  route add default via 10.85.0.1 dev eth0\n";
    let start = Instant::now();
    node.ns.run(|| batch(&outside));
    pod.ns.run(|| batch(inside));
    start.elapsed()
}

/// Runs `ip -batch` with the lines as its input.
fn batch(lines: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the floor needs ip (iproute2)");
    let mut input = child.stdin.take().expect("stdin is piped");
    input
        .write_all(lines.as_bytes())
        .expect("ip reads its whole input");
    drop(input);
    let status = child.wait().expect("ip is our child");
    assert!(status.success(), "ip -batch: {status} on\n{lines}");
}

fn add_bench(c: &mut Criterion) {
    if !can_run("netns") {
        return;
    }
    let node = Node::new(INSTANCE);
    let names = Names::default();
    // What is made once per node is not what a pod costs.
    let first = names.pod(&node);
    success(node.command("ADD", &first, json!({})));

    let mut group = c.benchmark_group("CNI ADD");
    group.sample_size(10);
    group.bench_function("gantry", |b| b.iter_custom(|n| adds(&node, &names, n)));
    group.bench_function("floor: ip -batch veth, address, route", |b| {
        b.iter_custom(|n| floors(&node, &names, n));
    });
    group.finish();

    success(node.command("DEL", &first, json!({})));
    let purged = node.purge();
    assert!(
        purged.status.success(),
        "{}",
        String::from_utf8_lossy(&purged.stderr)
    );
}

criterion_group!(benches, add_bench);
criterion_main!(benches);
