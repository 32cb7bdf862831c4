//! 100 nodes with 64 CPUs: 1,000 pods from nothing, and one more pod on the full cluster.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gantry_plan::*;
use gantry_topology::{Cpu, NumaNode, Topology};

const NODES: u32 = 100;
const PODS: u32 = 1_000;

/// Two sockets of 16 cores with 2 threads, four L3 groups.
fn topology() -> Topology {
    let cpu = |id: u32| Cpu {
        id,
        core: id % 32,
        l3: id % 32 / 8,
        numa: id % 32 / 16,
        socket: id % 32 / 16,
    };
    let numa = |id| NumaNode {
        id,
        memory_bytes: 128 << 30,
        hugepages: BTreeMap::new(),
        distances: BTreeMap::new(),
    };
    Topology {
        cpus: (0..64).map(cpu).collect(),
        numa_nodes: (0..2).map(numa).collect(),
    }
}

fn pod(index: u32) -> PodRequest {
    let cpu = match index % 4 {
        0 => CpuRequest::Shared {
            request_milli: 500,
            limit_milli: None,
        },
        kind => CpuRequest::Exclusive {
            count: kind * 2,
            smt: SmtPolicy::Full,
        },
    };
    let container = ContainerRequest {
        name: "main".into(),
        cpu,
        memory_bytes: 2 << 30,
        hugepages: BTreeMap::new(),
        storage_bytes: 0,
    };
    PodRequest {
        namespace: "bench".into(),
        name: format!("pod-{index}"),
        containers: vec![container],
        numa: NumaPolicy::Single,
        ..PodRequest::default()
    }
}

fn cluster() -> Snapshot {
    let node = || NodeState {
        topology: topology(),
        reserved: [0, 32].into_iter().collect(),
        schedulable: true,
        ..NodeState::default()
    };
    Snapshot {
        nodes: (0..NODES).map(|n| (format!("node-{n:03}"), node())).collect(),
        pods: (0..PODS).map(|p| (format!("uid-{p:04}"), pod(p))).collect(),
        ..Snapshot::default()
    }
}

/// What any placement costs at least: the first node with CPUs and memory enough, counted, without any rule.
fn first_fit(snapshot: &Snapshot) -> usize {
    let size = |pod: &PodRequest| match pod.containers[0].cpu {
        CpuRequest::Shared { request_milli, .. } => request_milli,
        CpuRequest::Exclusive { count, .. } => count * 1000,
    };
    let mut free: Vec<(u32, u64)> = snapshot.nodes.values().map(|_| (62_000, 256 << 30)).collect();
    let placed = snapshot.pods.values().filter(|pod| {
        let (cpu, memory) = (size(pod), pod.containers[0].memory_bytes);
        let node = free.iter_mut().find(|node| node.0 >= cpu && node.1 >= memory);
        node.map(|node| *node = (node.0 - cpu, node.1 - memory)).is_some()
    });
    placed.count()
}

fn plan_bench(c: &mut Criterion) {
    let snapshot = cluster();
    let full = plan(&snapshot, &Plan::default(), 1).plan;
    assert_eq!(
        full.placements.len(),
        PODS as usize,
        "every pod of the bench fits"
    );
    let mut more = snapshot.clone();
    more.pods.insert("uid-new".into(), pod(PODS + 1));

    let mut group = c.benchmark_group("plan 1,000 pods on 100 nodes of 64 CPUs");
    group.sample_size(10);
    group.bench_function("gantry", |b| {
        b.iter(|| plan(black_box(&snapshot), &Plan::default(), 1))
    });
    group.bench_function("floor: first fit by count", |b| {
        b.iter(|| first_fit(black_box(&snapshot)))
    });
    group.finish();

    let mut group = c.benchmark_group("plan one more pod on that cluster");
    group.sample_size(10);
    group.bench_function("gantry", |b| {
        b.iter_batched(
            || full.clone(),
            |full| plan(black_box(&more), &full, 1),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("floor: copy the plan", |b| b.iter(|| black_box(&full).clone()));
    group.finish();

    let mut group = c.benchmark_group("check that plan");
    group.sample_size(10);
    group.bench_function("gantry", |b| {
        b.iter(|| check(black_box(&snapshot), &Plan::default(), &full))
    });
    group.bench_function("floor: copy the plan", |b| b.iter(|| black_box(&full).clone()));
    group.finish();
}

criterion_group!(benches, plan_bench);
criterion_main!(benches);
