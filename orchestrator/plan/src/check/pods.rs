//! Each pod by itself and among the others: size, place, group.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Violation, numa_nodes};
use crate::{ContainerPlacement, ContainerRequest, CpuRequest, NumaPolicy, Placement, PodRequest};

pub(super) fn check(change: &Change<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if change.next != change.current {
        found.extend(anyone_lost(change));
    }
    for (uid, placement) in &change.next.placements {
        let Some(request) = change.snapshot.pods.get(uid) else {
            found.push(Violation::Unknown { pod: uid.clone() });
            continue;
        };
        match change.current.placements.get(uid) {
            None => found.extend(new_place(change, uid, request, placement)),
            Some(before) if before.node != placement.node => found.push(Violation::Moved {
                pod: uid.clone(),
                from: before.node.clone(),
                to: placement.node.clone(),
            }),
            Some(before) => found.extend(same_place(change, uid, placement, before)),
        }
        found.extend(sizes(uid, request, placement, change.current.placements.get(uid)));
        found.extend(numa(change, uid, request, placement));
    }
    found.extend(groups(change));
    found
}

/// Pods that had a place, still exist, and have none.
pub(super) fn anyone_lost(change: &Change<'_>) -> Vec<Violation> {
    let had = change
        .current
        .placements
        .keys()
        .filter(|uid| change.snapshot.pods.contains_key(*uid));
    let lost = had.filter(|uid| !change.next.placements.contains_key(*uid));
    lost.map(|uid| Violation::Lost { pod: uid.clone() }).collect()
}

/// More pods than the node can have, if the plan adds one.
pub(super) fn too_many(change: &Change<'_>, node: &str) -> Option<Violation> {
    let state = change.snapshot.nodes.get(node)?;
    let max_pods = state.max_pods?;
    let here: BTreeSet<&String> = change.on(node).map(|(uid, _)| uid).collect();
    let adds = here.iter().any(|uid| change.before(uid, node).is_none());
    let pods = state.held.keys().chain(here).collect::<BTreeSet<_>>().len();
    (adds && pods > max_pods as usize).then(|| Violation::TooManyPods {
        node: node.to_owned(),
        pods,
        max_pods,
    })
}

fn new_place(change: &Change<'_>, uid: &str, request: &PodRequest, placement: &Placement) -> Vec<Violation> {
    let (pod, node) = (uid.to_owned(), placement.node.clone());
    let Some(state) = change.snapshot.nodes.get(&node) else {
        return vec![Violation::WrongNode { pod, node }];
    };
    let mut found = Vec::new();
    if !state.schedulable || state.disk_pressure {
        found.push(Violation::NotSchedulable {
            pod: pod.clone(),
            node: node.clone(),
        });
    }
    let selected = request
        .node_selector
        .iter()
        .all(|(key, value)| state.labels.get(key) == Some(value));
    if !selected || request.node_name.as_ref().is_some_and(|name| *name != node) {
        found.push(Violation::WrongNode {
            pod: pod.clone(),
            node: node.clone(),
        });
    }
    found.extend(volumes(change, uid, request, &node));
    for (other, _) in change.on(&placement.node).filter(|(other, _)| *other != uid) {
        let rules = change
            .snapshot
            .pods
            .get(other)
            .map(|r| r.anti_affinity.as_slice())
            .unwrap_or_default();
        for rule in &request.anti_affinity {
            if rules
                .iter()
                .any(|theirs| theirs.key == rule.key && (theirs.required || rule.required))
            {
                let (pod, node, other) = (pod.clone(), node.clone(), other.clone());
                found.push(Violation::AntiAffinity {
                    node,
                    pod,
                    other,
                    key: rule.key.clone(),
                });
            }
        }
    }
    found
}

/// A pod is where its volumes are, and shares none that is for one pod.
fn volumes(change: &Change<'_>, uid: &str, request: &PodRequest, node: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    if request.obstacle.is_some() {
        found.push(Violation::WrongNode {
            pod: uid.to_owned(),
            node: node.to_owned(),
        });
    }
    for volume in &request.volumes {
        let others = change.next.placements.iter().filter(|(other, _)| *other != uid);
        let mut others = others.filter(|(other, _)| {
            let theirs = change.snapshot.pods.get(*other);
            theirs.is_some_and(|r| r.volumes.iter().any(|theirs| theirs.key == volume.key))
        });
        let elsewhere = volume.node.as_ref().is_some_and(|at| at != node);
        if elsewhere || others.any(|(_, other)| other.node != node || volume.exclusive) {
            found.push(Violation::WrongNode {
                pod: uid.to_owned(),
                node: node.to_owned(),
            });
        }
    }
    found
}

fn same_place(change: &Change<'_>, uid: &str, placement: &Placement, before: &Placement) -> Vec<Violation> {
    if placement.resize_pending {
        let same = placement.containers == before.containers && placement.numa_nodes == before.numa_nodes;
        return if same {
            Vec::new()
        } else {
            vec![Violation::PendingChanged { pod: uid.to_owned() }]
        };
    }
    let mut found = Vec::new();
    for container in &placement.containers {
        let Some(had) = before.containers.iter().find(|c| c.name == container.name) else {
            continue;
        };
        let online = change
            .snapshot
            .nodes
            .get(&placement.node)
            .map(|state| state.topology.all_cpus());
        let had_online = online.map_or_else(|| had.cpus.clone(), |online| online.intersection(&had.cpus));
        if !had_online.is_subset(&container.cpus) && !container.cpus.is_subset(&had_online) {
            found.push(Violation::Shuffled {
                pod: uid.to_owned(),
                container: container.name.clone(),
                before: had.cpus.clone(),
                after: container.cpus.clone(),
            });
        }
    }
    found
}

/// As requested, or, with a resize pending, as before (which [`same_place`] sees to).
fn sizes(
    uid: &str,
    request: &PodRequest,
    placement: &Placement,
    before: Option<&Placement>,
) -> Vec<Violation> {
    if placement.resize_pending && before.is_some() {
        return Vec::new();
    }
    let granted: BTreeMap<&str, &ContainerPlacement> = placement
        .containers
        .iter()
        .map(|c| (c.name.as_str(), c))
        .collect();
    let mut found = Vec::new();
    for wanted in &request.containers {
        let (says, asks) = (
            granted.get(wanted.name.as_str()).map(|c| granted_size(c)),
            wanted_size(wanted),
        );
        if says.as_ref() != Some(&asks) {
            found.push(Violation::WrongSize {
                pod: uid.to_owned(),
                container: wanted.name.clone(),
                granted: says.unwrap_or_else(|| "nothing".to_owned()),
                wanted: asks,
            });
        }
    }
    let names: Vec<_> = placement.containers.iter().map(|c| &c.name).collect();
    if found.is_empty() && !names.into_iter().eq(request.containers.iter().map(|c| &c.name)) {
        found.push(Violation::WrongSize {
            pod: uid.to_owned(),
            container: "*".to_owned(),
            granted: "other containers".to_owned(),
            wanted: "the request's containers in order".to_owned(),
        });
    }
    found
}

fn wanted_size(wanted: &ContainerRequest) -> String {
    let cpus = match wanted.cpu {
        CpuRequest::Exclusive { count, .. } => count as usize,
        CpuRequest::Shared { .. } => 0,
    };
    let pages: BTreeMap<u64, u64> = wanted
        .hugepages
        .iter()
        .filter(|(_, b)| **b > 0)
        .map(|(s, b)| (*s, *b))
        .collect();
    format!(
        "{:?}, {cpus} CPUs, {} bytes, hugepages {pages:?}, storage {}",
        wanted.cpu, wanted.memory_bytes, wanted.storage_bytes
    )
}

fn granted_size(granted: &ContainerPlacement) -> String {
    let mut pages: BTreeMap<u64, u64> = BTreeMap::new();
    for (size, bytes) in granted.hugepages.values().flatten() {
        *pages.entry(*size).or_default() += bytes;
    }
    let bytes: u64 = granted.memory_bytes.values().sum();
    format!(
        "{:?}, {} CPUs, {bytes} bytes, hugepages {pages:?}, storage {}",
        granted.cpu,
        granted.cpus.len(),
        granted.storage_bytes
    )
}

/// The policy holds for places that are new or changed; memory is where the pod may use it.
fn numa(change: &Change<'_>, uid: &str, request: &PodRequest, placement: &Placement) -> Vec<Violation> {
    let before = change.before(uid, &placement.node);
    if before.is_some_and(|before| before.containers == placement.containers) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let at = numa_nodes(change.snapshot, placement);
    if request.numa == NumaPolicy::Single && (at.len() > 1 || placement.numa_nodes.len() > 1) {
        let numa_nodes = at.union(&placement.numa_nodes).copied().collect();
        found.push(Violation::NumaPolicy {
            pod: uid.to_owned(),
            numa_nodes,
        });
    }
    let memory = placement
        .containers
        .iter()
        .flat_map(|c| c.memory_bytes.keys().chain(c.hugepages.keys()));
    let outside: BTreeSet<_> = memory
        .filter(|numa| !placement.numa_nodes.contains(numa))
        .collect();
    found.extend(outside.into_iter().map(|numa| Violation::MemoryOutside {
        pod: uid.to_owned(),
        numa: *numa,
    }));
    found
}

/// If a plan gives any pod of a group a place, all that have none get one.
fn groups(change: &Change<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut placed_now = BTreeSet::new();
    for uid in change
        .next
        .placements
        .keys()
        .filter(|uid| !change.current.placements.contains_key(*uid))
    {
        placed_now.extend(
            change
                .snapshot
                .pods
                .get(uid)
                .and_then(|request| request.group.as_ref()),
        );
    }
    for (uid, request) in &change.snapshot.pods {
        if let Some(group) = request.group.as_ref().filter(|group| placed_now.contains(group))
            && !change.next.placements.contains_key(uid)
        {
            found.push(Violation::PartialGroup {
                group: group.clone(),
                missing: uid.clone(),
            });
        }
    }
    found
}
