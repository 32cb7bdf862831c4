//! Reasons in words, for people.

use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::{Available, Misfit, NumaId};

use crate::reason::Reason;
use crate::{Explanation, NodeName, NodeVerdict, PodRequest, VolumeRequest};

/// What an explanation says of a node that takes no pods at present: it is cordoned, or its agent is away.
pub const NOT_SCHEDULABLE: &str = "cordoned or not ready";

/// The line names this many different reasons; the verdicts have them all.
const REASONS_IN_A_LINE: usize = 8;

/// A pod that fits no node; of the `silent` ones nothing is known but that they are there.
pub(crate) fn unplaced(
    request: &PodRequest,
    reasons: &BTreeMap<NodeName, Reason>,
    silent: &BTreeSet<NodeName>,
) -> Explanation {
    let mut alike: Vec<(String, Vec<&str>)> = Vec::new();
    for (node, reason) in reasons {
        let text = text(reason);
        match alike.iter_mut().find(|(other, _)| *other == text) {
            Some((_, nodes)) => nodes.push(node),
            None => alike.push((text, vec![node])),
        }
    }
    let mut parts: Vec<String> = alike
        .iter()
        .take(REASONS_IN_A_LINE)
        .map(|(text, nodes)| match nodes.as_slice() {
            [one] => format!("{one}: {text}"),
            many => format!("{} nodes: {text}", many.len()),
        })
        .collect();
    let more: usize = alike
        .iter()
        .skip(REASONS_IN_A_LINE)
        .map(|(_, nodes)| nodes.len())
        .sum();
    if more > 0 {
        parts.push(format!("{more} more nodes for other reasons"));
    }
    let absent = request
        .node_name
        .as_ref()
        .filter(|node| !reasons.contains_key(*node));
    let elsewhere = request.volumes.iter().find_map(|volume| {
        let node = volume.node.as_ref()?;
        (!reasons.contains_key(node)).then_some((volume, node))
    });
    let reason = match (absent, reasons.len()) {
        _ if request.obstacle.is_some() => request.obstacle.clone().unwrap_or_default(),
        (Some(node), _) if silent.contains(node) => {
            let silence = text(&Reason::NoTopology);
            format!(
                "0/1 nodes fit: {node}, which the pod names in `nodeName`: {silence}; is its agent running?"
            )
        }
        (Some(node), _) => format!("there is no node {node}, which the pod names in `nodeName`"),
        (None, _) if elsewhere.is_some() => gone(elsewhere, silent),
        (None, 0) => "there are no nodes".to_owned(),
        (None, count) => format!("0/{count} nodes fit: {}", parts.join("; ")),
    };
    let nodes = reasons
        .iter()
        .map(|(node, reason)| (node.clone(), verdict(reason)))
        .collect();
    Explanation {
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        reason,
        nodes,
    }
}

/// Of a volume whose node takes no part.
fn gone(elsewhere: Option<(&VolumeRequest, &NodeName)>, silent: &BTreeSet<NodeName>) -> String {
    let Some((volume, node)) = elsewhere else {
        return String::new();
    };
    let name = &volume.name;
    match silent.contains(node) {
        true => format!(
            "{name} is on the disk of node {node}, which has not reported its CPUs and memory; is its agent running?"
        ),
        false => format!("{name} is on the disk of node {node}, and there is no such node"),
    }
}

/// A pod that keeps its old size, on its node, for now.
pub(crate) fn held_back(request: &PodRequest, node: &str, reason: &Reason) -> Explanation {
    Explanation {
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        reason: format!("keeps its old size: {node}: {}", text(reason)),
        nodes: BTreeMap::from([(node.to_owned(), verdict(reason))]),
    }
}

/// A pod without a place because its group does not fit; `blocker` explains the member that is in the way.
pub(crate) fn in_group(request: &PodRequest, blocker: &Explanation, is_blocker: bool) -> Explanation {
    let reason = match &request.group {
        _ if is_blocker => blocker.reason.clone(),
        group => format!(
            "group {} is placed all or none, and {}/{} does not fit: {}",
            group.as_deref().unwrap_or_default(),
            blocker.namespace,
            blocker.name,
            blocker.reason
        ),
    };
    Explanation {
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        reason,
        nodes: if is_blocker {
            blocker.nodes.clone()
        } else {
            BTreeMap::new()
        },
    }
}

fn verdict(reason: &Reason) -> NodeVerdict {
    NodeVerdict {
        reason: text(reason),
        numa_nodes: by_numa(reason),
    }
}

fn text(reason: &Reason) -> String {
    match reason {
        Reason::NotSchedulable => NOT_SCHEDULABLE.to_owned(),
        Reason::Full { max_pods } => format!("it has {max_pods} pods and takes no more"),
        Reason::KeptForOthers { kept } => {
            format!("its last {kept} places are kept for others: many pods of the same owner are there")
        }
        Reason::OtherNode { wanted } => format!("the pod is bound to node {wanted}"),
        Reason::RunsOn { node } => format!("the pod still runs on node {node}"),
        Reason::Selector { key, value } => format!("no label {key}={value}"),
        Reason::AntiAffinity { key } => format!("a pod with anti-affinity {key} is there"),
        Reason::SharedPool {
            needed_milli,
            pool_milli,
        } => {
            format!("the shared pool would have {pool_milli}m CPU for the {needed_milli}m promised")
        }
        Reason::Storage {
            wanted_bytes,
            free_bytes,
        } => {
            let (free, wanted) = (size(*free_bytes), size(*wanted_bytes));
            format!("it has {free} free of the {wanted} ephemeral storage needed")
        }
        Reason::VolumeElsewhere { volume, node } => format!("{volume} is on the disk of node {node}"),
        Reason::VolumeInUse { volume, pod } => {
            format!("{volume} is for one pod at a time, and pod {pod} has it")
        }
        Reason::VolumeRoom {
            wanted_bytes,
            free_bytes,
        } => {
            let (free, wanted) = (size(*free_bytes), size(*wanted_bytes));
            format!("it has {free} free of the {wanted} needed for its volumes and ephemeral storage")
        }
        Reason::DiskPressure => "its disk is short of space (DiskPressure)".to_owned(),
        Reason::NoSharedPool => "no CPU would be left for the shared pool".to_owned(),
        Reason::NodeGone => "the node is gone".to_owned(),
        Reason::NoTopology => "the node has not reported its CPUs and memory".to_owned(),
        Reason::Cpus {
            misfit: Misfit::SplitCores { cpus },
            ..
        } => {
            format!("SMT siblings of CPUs {cpus} belong to others")
        }
        Reason::Cpus {
            misfit: Misfit::WrongNuma { cpus },
            ..
        } => {
            format!("the pod's CPUs {cpus} would have to move to another NUMA node")
        }
        Reason::Cpus { .. } | Reason::EachNuma(_) | Reason::Memory { .. } | Reason::Hugepages { .. } => {
            let lines = by_numa(reason);
            let lines: Vec<String> = lines
                .iter()
                .map(|(numa, line)| format!("NUMA node {numa} {line}"))
                .collect();
            lines.join(", ")
        }
    }
}

/// What each NUMA node lacks, as the end of a sentence.
fn by_numa(reason: &Reason) -> BTreeMap<NumaId, String> {
    match reason {
        Reason::EachNuma(reasons) => {
            let line = |(numa, reason): (&NumaId, &Reason)| {
                let own = by_numa(reason).remove(numa);
                (
                    *numa,
                    own.unwrap_or_else(|| format!("does not do: {}", text(reason))),
                )
            };
            reasons.iter().map(line).collect()
        }
        Reason::Cpus {
            wanted,
            whole_cores,
            misfit: Misfit::TooFew { missing, numa_nodes },
        } => numa_nodes
            .iter()
            .map(|(numa, has)| (*numa, cpu_line(*wanted, *missing, *whole_cores, *has)))
            .collect(),
        Reason::Memory {
            wanted_bytes,
            free_bytes,
        } => {
            let line = |free: &u64| {
                format!(
                    "has {} free of the {} memory needed",
                    size(*free),
                    size(*wanted_bytes)
                )
            };
            free_bytes
                .iter()
                .map(|(numa, free)| (*numa, line(free)))
                .collect()
        }
        Reason::Hugepages {
            page_bytes,
            wanted_bytes,
            free_bytes,
        } => {
            let line = |free: &u64| {
                format!(
                    "has {} free of the {} needed in {} hugepages",
                    size(*free),
                    size(*wanted_bytes),
                    size(*page_bytes)
                )
            };
            free_bytes
                .iter()
                .map(|(numa, free)| (*numa, line(free)))
                .collect()
        }
        _ => BTreeMap::new(),
    }
}

fn cpu_line(wanted: u32, missing: u32, whole_cores: bool, has: Available) -> String {
    let more = if missing < wanted { "more " } else { "" };
    let split = match has.free - has.usable {
        split if whole_cores && split > 0 => format!(" in whole cores ({split} more in split cores)"),
        _ => String::new(),
    };
    format!(
        "has {} free of the {missing} {more}exclusive CPUs needed{split}",
        has.usable
    )
}

/// `1536Mi`, `2Gi`: the largest unit that leaves no fraction.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(
        || bytes.to_string(),
        |(unit, name)| format!("{}{name}", bytes / unit),
    )
}
