//! How far an operation is: the message, and whether the function is as asked.

use std::sync::Arc;

use gantry_api::{NetworkFunction, Operation, OperationKind, OperationPhase};
use gantry_nodeagent_api::{ContainerResources, PodDesired};
use k8s_openapi::api::core::v1::Pod;

use super::super::world::{Key, Work};
use super::super::{meta, nf, pods};
use super::{function_of, instances, receipt};

/// Memory limits in the kernel are whole pages.
const PAGE_BYTES: u64 = 4096;
/// A CPU weight of cgroup v2 stands for tens of thousandths.
const WEIGHT_STEP_MILLI: u32 = 10;
/// The highest weight of cgroup v2 stands for so much.
const MOST_WEIGHT_MILLI: u32 = 100_000;
/// The kernel takes no CPU quota below a millisecond of 100.
const LEAST_LIMIT_MILLI: u32 = 10;

/// One step of a running operation.
pub(super) fn advance(work: &mut Work<'_>, key: &Key, operation: &Operation) {
    let Some(function) = function_of(work, operation) else {
        instances::settle(work, key, &[], operation);
        if operation.spec.kinds == [OperationKind::Undeploy] {
            receipt::close(work, key, OperationPhase::Succeeded, "all is gone");
        } else {
            receipt::close(
                work,
                key,
                OperationPhase::Failed,
                "the function was deleted meanwhile",
            );
        }
        return;
    };
    let pods = nf::pods_of(work, &function.metadata);
    instances::settle(work, key, &pods, operation);
    let asked = Asked::of(work, &function, &pods);
    if asked.all() {
        receipt::close(work, key, OperationPhase::Succeeded, &asked.message(&function));
    } else if let Some(operation) = work.edit::<Operation>(key) {
        operation.status.message = asked.message(&function);
    }
}

/// How near the function is to what is asked.
struct Asked {
    leaves: bool,
    /// What is asked cannot be done as it is.
    hindered: bool,
    wanted: usize,
    staying: usize,
    ready: usize,
    updated: usize,
    resized: usize,
    /// Ready, of the revision and of the size that is asked, all in one.
    complete: usize,
    leaving: usize,
    leaving_sessions: u64,
}

impl Asked {
    fn of(work: &Work<'_>, function: &NetworkFunction, instances: &[Arc<Pod>]) -> Self {
        let (leaving, staying): (Vec<_>, Vec<_>) = instances.iter().partition(|p| pods::is_leaving(p));
        let updated = |p: &Pod| {
            meta::label(&p.metadata, gantry_api::labels::REVISION) == Some(function.status.revision.as_str())
        };
        let resized = |p: &Pod| nf::is_sized_as_asked(function, p) && in_force(work, p);
        let count = |holds: &dyn Fn(&Pod) -> bool| staying.iter().filter(|p| holds(p)).count();
        Self {
            leaves: function.metadata.deletion_timestamp.is_some(),
            hindered: work.problems.contains_key(&Key::of(&function.metadata)),
            wanted: function.spec.replicas as usize,
            staying: staying.len(),
            ready: count(&pods::is_ready),
            updated: count(&updated),
            resized: count(&resized),
            complete: count(&|p| pods::is_ready(p) && updated(p) && resized(p)),
            leaving: leaving.len(),
            leaving_sessions: leaving
                .iter()
                .filter_map(|p| pods::sessions(p, work.agents))
                .sum(),
        }
    }

    fn all(&self) -> bool {
        !self.leaves
            && !self.hindered
            && self.leaving == 0
            && self.staying == self.wanted
            && self.complete == self.wanted
    }

    fn message(&self, function: &NetworkFunction) -> String {
        let mut parts = Vec::new();
        if !self.leaves {
            parts.push(format!("{}/{} ready", self.ready, self.wanted));
            if self.updated != self.wanted {
                parts.push(format!("{}/{} of the new revision", self.updated, self.wanted));
            }
            if self.resized < self.ready {
                parts.push(format!("{}/{} of the new size", self.resized, self.wanted));
            }
        }
        if self.leaving > 0 {
            parts.push(format!(
                "{} draining or stopping ({} sessions)",
                self.leaving, self.leaving_sessions
            ));
        }
        if !function.status.message.is_empty() {
            parts.push(function.status.message.clone());
        }
        parts.join(", ")
    }
}

/// The agent reports the pod's containers at the size that its spec asks, on the CPUs of the plan. A report from before it has
/// accepted the newest configuration does not count: it may have taken other sizes since.
pub(super) fn in_force(work: &Work<'_>, pod: &Pod) -> bool {
    let uid = meta::uid(&pod.metadata);
    let on_node = pods::node(pod).and_then(|node| {
        let status = work.agents.get(node)?.status.as_ref()?;
        Some((work.configs.get(node)?, status))
    });
    let Some((newest, status)) = on_node.filter(|(newest, status)| status.accepted >= newest.generation)
    else {
        return false;
    };
    let (Some(config), Some(report)) = (newest.pods.get(uid), status.pods.get(uid)) else {
        return false;
    };
    let held_back =
        work.plan.placements.get(uid).is_none_or(|p| p.resize_pending) || work.unplaced.contains_key(uid);
    !held_back
        && config.desired == PodDesired::Run
        && config.containers.iter().all(|wanted| {
            let seen = report.containers.iter().find(|c| c.name == wanted.name);
            seen.is_some_and(|seen| is_same_size(&seen.resources, &wanted.resources))
        })
}

/// What is read back from the kernel is what was asked, as exactly as the kernel keeps it.
fn is_same_size(seen: &ContainerResources, wanted: &ContainerResources) -> bool {
    let pages = |r: &ContainerResources| r.memory_bytes / PAGE_BYTES;
    let limit = |r: &ContainerResources| r.cpu_limit_milli.map(|milli| milli.max(LEAST_LIMIT_MILLI));
    let hugepages = |r: &ContainerResources| -> Vec<(u64, u64)> {
        let some = r.hugepages.iter().filter(|(_, bytes)| **bytes > 0);
        some.map(|(size, bytes)| (*size, *bytes)).collect()
    };
    seen.cpus == wanted.cpus
        && is_same_request(seen.cpu_request_milli, wanted.cpu_request_milli)
        && limit(seen) == limit(wanted)
        && pages(seen) == pages(wanted)
        && hugepages(seen) == hugepages(wanted)
}

/// The least weight reads as none.
fn is_same_request(seen_milli: u32, wanted_milli: u32) -> bool {
    let least = seen_milli == 0 && wanted_milli < 2 * WEIGHT_STEP_MILLI;
    let most = |milli: u32| milli.min(MOST_WEIGHT_MILLI);
    least || most(seen_milli).abs_diff(most(wanted_milli)) < WEIGHT_STEP_MILLI
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(cpus: &str, request: u32, limit: Option<u32>, memory: u64, pages: u64) -> ContainerResources {
        ContainerResources {
            cpus: cpus.parse().unwrap(),
            cpu_request_milli: request,
            cpu_limit_milli: limit,
            memory_bytes: memory,
            hugepages: [(2 << 20, pages)].into(),
        }
    }

    #[test]
    fn a_size_is_compared_in_all_its_parts() {
        let none = ContainerResources {
            hugepages: [].into(),
            ..size("", 105, None, 8192, 0)
        };
        for (seen, wanted, same) in [
            (size("", 105, None, 8192, 0), none, true),
            (size("", 100, None, 8192, 0), size("", 105, None, 8300, 0), true),
            (size("", 0, None, 0, 0), size("", 15, None, 0, 0), true),
            (size("", 100_000, None, 0, 0), size("", 200_000, None, 0, 0), true),
            (size("", 0, Some(10), 0, 0), size("", 0, Some(5), 0, 0), true),
            (size("", 200, None, 0, 0), size("", 400, None, 0, 0), false),
            (size("", 200, None, 0, 0), size("", 200, Some(200), 0, 0), false),
            (size("2-3", 2000, None, 0, 0), size("", 2000, None, 0, 0), false),
            (size("", 2000, None, 0, 0), size("2-3", 2000, None, 0, 0), false),
            (size("", 200, None, 4096, 0), size("", 200, None, 8192, 0), false),
            (size("", 200, None, 0, 2 << 20), size("", 200, None, 0, 0), false),
        ] {
            assert_eq!(is_same_size(&seen, &wanted), same, "{seen:?} {wanted:?}");
        }
    }
}
