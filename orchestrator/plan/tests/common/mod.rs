//! A notation for nodes, pods and steps that a person can read. See the folder's README.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use gantry_plan::*;
use gantry_topology::{Cpu, CpuSet, NumaNode, Topology};

/// A regular machine: one NUMA node a socket, siblings numbered as Linux does (0,8 with 8 cores).
pub fn machine(sockets: u32, cores: u32, threads: u32, cores_per_l3: u32, memory_bytes: u64) -> Topology {
    let mut cpus = Vec::new();
    for thread in 0..threads {
        for core in 0..sockets * cores {
            let (id, socket) = (thread * sockets * cores + core, core / cores);
            cpus.push(Cpu {
                id,
                core,
                l3: core / cores_per_l3,
                numa: socket,
                socket,
            });
        }
    }
    let numa = |id| NumaNode {
        id,
        memory_bytes,
        hugepages: BTreeMap::new(),
        distances: BTreeMap::new(),
    };
    Topology {
        cpus,
        numa_nodes: (0..sockets).map(numa).collect(),
    }
}

/// `512Mi`, `8Gi`, `2Mi`.
pub fn bytes(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "Gi" => 1 << 30,
        "Mi" => 1 << 20,
        "Ki" => 1 << 10,
        "" => 1,
        other => panic!("unit {other} in {text}"),
    };
    number
        .parse::<u64>()
        .unwrap_or_else(|_| panic!("{text} is no size"))
        * unit
}

/// `8Gi`.
pub fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(
        || bytes.to_string(),
        |(unit, name)| format!("{}{name}", bytes / unit),
    )
}

fn number(text: &str) -> u32 {
    text.trim_end_matches('m')
        .parse()
        .unwrap_or_else(|_| panic!("{text} is no number"))
}

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// `2 sockets x 4 cores x 2 threads, 8Gi per numa, reserved 0 8, ...`; a CPU list has spaces for commas.
pub fn node(text: &str) -> NodeState {
    let part = |word: &str| text.split(',').map(str::trim).find(|p| p.contains(word));
    let shape: Vec<u32> = text
        .split(',')
        .next()
        .unwrap()
        .split('x')
        .map(|p| number(first(p)))
        .collect();
    let [sockets, cores, threads] = shape[..] else {
        panic!("{text}: want `S sockets x C cores x T threads`")
    };
    let l3 = part("cores per l3").map_or(cores, |p| number(first(p)));
    let memory = part("per numa").map_or(0, |p| bytes(first(p)));
    let mut state = NodeState {
        topology: machine(sockets, cores, threads, l3, memory),
        schedulable: true,
        ..NodeState::default()
    };
    for option in text.split(',').map(str::trim).skip(1) {
        let words: Vec<&str> = option.split(' ').collect();
        match words[..] {
            ["reserved", "memory", amount] => state.reserved_memory_bytes = bytes(amount),
            ["reserved", ..] => state.reserved = cpus(&words[1..].join(",")),
            ["storage", amount] => state.storage_bytes = Some(bytes(amount)),
            ["disk", "pressure"] => state.disk_pressure = true,
            ["max", count, "pods"] => state.max_pods = Some(number(count)),
            ["label", label] => {
                let (key, value) = label.split_once('=').expect("key=value");
                state.labels.insert(key.to_owned(), value.to_owned());
            }
            ["hugepages", count, "x", page, ..] => {
                for numa in &mut state.topology.numa_nodes {
                    numa.hugepages.insert(bytes(page), u64::from(number(count)));
                }
            }
            [_, "per", "numa"] | [_, "cores", "per", "l3"] => {}
            _ => panic!("node option `{option}`"),
        }
    }
    state
}

fn first(text: &str) -> &str {
    text.trim().split(' ').next().unwrap()
}

/// `exclusive 4 full, 1Gi + shared 500m, 256Mi, numa single, group g, avoid k, spread k`; `+` is the next container.
pub fn pod(namespace: &str, name: &str, text: &str) -> PodRequest {
    let mut pod = PodRequest {
        namespace: namespace.into(),
        name: name.into(),
        ..PodRequest::default()
    };
    for (index, container) in text.split(" + ").enumerate() {
        let mut wanted = ContainerRequest {
            name: format!("c{index}"),
            ..ContainerRequest::default()
        };
        for option in container.split(',').map(str::trim) {
            let words: Vec<&str> = option.split(' ').collect();
            match words[..] {
                ["exclusive", count, smt] => {
                    let smt = if smt == "full" {
                        SmtPolicy::Full
                    } else {
                        SmtPolicy::Any
                    };
                    wanted.cpu = CpuRequest::Exclusive {
                        count: number(count),
                        smt,
                    };
                }
                ["shared", milli] => {
                    wanted.cpu = CpuRequest::Shared {
                        request_milli: number(milli),
                        limit_milli: None,
                    };
                }
                ["hugepages", count, "x", page] => {
                    wanted
                        .hugepages
                        .insert(bytes(page), u64::from(number(count)) * bytes(page));
                }
                ["storage", amount] => wanted.storage_bytes = bytes(amount),
                [amount] => wanted.memory_bytes = bytes(amount),
                ["numa", "single"] => pod.numa = NumaPolicy::Single,
                ["numa", "prefer"] => pod.numa = NumaPolicy::Prefer,
                ["numa", "any"] => pod.numa = NumaPolicy::Any,
                ["group", group] => pod.group = Some(group.to_owned()),
                ["avoid", key] => pod.anti_affinity.push(AntiAffinity {
                    key: key.into(),
                    required: true,
                }),
                ["spread", key] => pod.anti_affinity.push(AntiAffinity {
                    key: key.into(),
                    required: false,
                }),
                ["priority", priority] => pod.priority = priority.parse().unwrap(),
                ["volume", key] => pod.volumes.push(volume(key, None)),
                ["volume", key, amount] => pod.volumes.push(VolumeRequest {
                    bytes: bytes(amount),
                    ..volume(key, None)
                }),
                ["volume", key, "on", node] => pod.volumes.push(volume(key, Some(node))),
                ["own", "volume", key] => pod.volumes.push(VolumeRequest {
                    exclusive: true,
                    ..volume(key, None)
                }),
                ["lacks", what] => pod.obstacle = Some(format!("{what} not found")),
                ["on", node] => pod.node_name = Some(node.to_owned()),
                ["select", label] => {
                    let (key, value) = label.split_once('=').expect("key=value");
                    pod.node_selector.insert(key.to_owned(), value.to_owned());
                }
                _ => panic!("pod option `{option}`"),
            }
        }
        pod.containers.push(wanted);
    }
    pod
}

fn volume(key: &str, node: Option<&str>) -> VolumeRequest {
    VolumeRequest {
        key: key.to_owned(),
        name: format!("volume {key}"),
        node: node.map(str::to_owned),
        ..VolumeRequest::default()
    }
}

/// What agents report once they have made a plan true.
pub fn settle(snapshot: &mut Snapshot, plan: &Plan) {
    for (name, node) in &mut snapshot.nodes {
        node.held = plan
            .placements
            .iter()
            .filter(|(_, placement)| placement.node == *name)
            .map(|(uid, placement)| (uid.clone(), held(placement)))
            .collect();
    }
}

/// What a pod holds that has exactly what it was granted.
pub fn held(placement: &Placement) -> Held {
    Held {
        cpus: placement.containers.iter().flat_map(|c| c.cpus.iter()).collect(),
        memory_bytes: placement
            .containers
            .iter()
            .flat_map(|c| c.memory_bytes.values())
            .sum(),
    }
}
