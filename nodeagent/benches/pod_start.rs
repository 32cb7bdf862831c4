//! A pod's first container, from the word to its shim until its program runs, against what any runtime must do: new namespaces,
//! another root, and the program.

#[path = "../tests/runtime_support/mod.rs"]
mod runtime_support;

use std::cell::Cell;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gantry_nodeagent::runtime::RuntimeDir;
use runtime_support::{Node, PATIENCE, exit_on_record, node};

/// The one container of each pod.
const CONTAINER: &str = "main";

/// Counts pods, so that no uid is ever used twice.
#[derive(Default)]
struct Uids(Cell<u32>);

impl Uids {
    fn next(&self) -> String {
        self.0.set(self.0.get() + 1);
        format!("pod{}", self.0.get())
    }
}

/// The time of `iterations` shims that start a container. Its root and its cgroup are there before; its end is outside the time.
fn starts(node: &Node, uids: &Uids, iterations: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..iterations {
        let uid = uids.next();
        let pod = node.pod(&uid);
        let request = node.sh(&pod, &uid, CONTAINER, "exec sleep 1000");
        let start = Instant::now();
        let shim = node.shim(&pod);
        let state = shim.start_container(&request).expect("the container starts");
        spent += start.elapsed();
        assert!(state.running());
        shim.signal(CONTAINER, nix::libc::SIGKILL)
            .expect("the container runs");
        exit_on_record(&pod, CONTAINER);
        shim.shutdown().expect("nothing runs any more");
        node.cgroups
            .remove_pod(&uid, PATIENCE)
            .expect("the pod's cgroups are empty");
        pod.remove().expect("nothing is mounted in the pod's directory");
    }
    spent
}

/// The time of `iterations` runs of `unshare` with the namespaces of a container, until the program in the root says a word.
fn floors(node: &Node, uids: &Uids, iterations: u64) -> Duration {
    let pod = node.pod(&uids.next());
    let root = pod.path().join("rootfs");
    let spent = (0..iterations).map(|_| floor(&root)).sum();
    pod.remove().expect("nothing is mounted in the pod's directory");
    spent
}

fn floor(root: &Path) -> Duration {
    let start = Instant::now();
    let mut child = Command::new("unshare")
        .args([
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
            "--fork",
            "--kill-child",
            "--root",
        ])
        .arg(root)
        .args(["/bin/echo", "runs"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the floor needs unshare (util-linux)");
    let mut output = child.stdout.take().expect("stdout is piped");
    let said = output.read(&mut [0; 5]);
    let spent = start.elapsed();
    let status = child.wait().expect("unshare is our child");
    assert!(status.success() && matches!(said, Ok(5)), "unshare: {status}");
    spent
}

fn pod_start_bench(c: &mut Criterion) {
    let Some(node) = node() else { return };
    let uids = Uids::default();

    let mut group = c.benchmark_group("pod start");
    group.sample_size(10);
    group.bench_function("gantry", |b| b.iter_custom(|n| starts(&node, &uids, n)));
    group.bench_function("floor: unshare(1), chroot of the same root", |b| {
        b.iter_custom(|n| floors(&node, &uids, n));
    });
    group.finish();

    let left = RuntimeDir::new(node.dir.path())
        .pods()
        .expect("the directory is ours");
    assert!(left.is_empty(), "left behind: {left:?}");
    let left = node.cgroups.pods().expect("the cgroups are ours");
    assert!(left.is_empty(), "left behind: {left:?}");
}

criterion_group!(benches, pod_start_bench);
criterion_main!(benches);
