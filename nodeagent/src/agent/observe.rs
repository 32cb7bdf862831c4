//! What a starting agent finds: directories, shims, cgroups, network namespaces.

use std::collections::BTreeSet;

use gantry_topology::CpuSet;

use super::Failure;
use super::pods::{Pods, end_before, run_of};
use super::rootfs::read_record;
use crate::core::{Observed, ObservedPod};
use crate::runtime::{RuntimeError, ShimHandle};

/// Looks at everything, and listens to the shims that answer. What cannot be read is logged and taken as absent.
pub(super) fn observe(pods: &Pods) -> Result<Observed, Failure> {
    let mut uids: BTreeSet<String> = pods.runtime.pods()?.into_iter().collect();
    uids.extend(pods.cgroups.pods()?);
    let netns = pods.netns.uids();
    uids.extend(netns.map_err(Failure::io("list", &pods.settings.agent_dir.join("netns")))?);
    let observed = uids.into_iter().map(|uid| {
        let pod = observe_pod(pods, &uid);
        (uid, pod)
    });
    Ok(Observed {
        pods: observed.collect(),
    })
}

fn observe_pod(pods: &Pods, uid: &str) -> ObservedPod {
    let dir = pods.runtime.pod(uid);
    let mut pod = ObservedPod {
        released: dir.is_reduced(),
        ..ObservedPod::default()
    };
    let states = match ShimHandle::connect(&dir).and_then(|shim| shim.status()) {
        Ok(status) => {
            pod.shim = true;
            status.containers
        }
        Err(RuntimeError::ShimGone { .. }) => dir.states().unwrap_or_default(),
        Err(error) => {
            // Slow, or we are short of something: no reason to take its containers for dead.
            tracing::warn!(pod = uid, %error, "the shim does not answer; what is on record counts");
            pod.shim = true;
            dir.states().unwrap_or_default()
        }
    };
    if pod.shim {
        pods.watches.keep_trying(uid, &dir);
    }
    for state in states {
        let container = pod.containers.entry(state.name.clone()).or_default();
        container.before = end_before(&state);
        container.run = Some(run_of(&state));
    }
    for name in pods.cgroups.containers(uid).unwrap_or_default() {
        match pods.cgroups.in_force(uid, &name) {
            Ok(applied) => {
                let mut resources = applied.resources(&applied.cpus);
                resources.cpus = CpuSet::new();
                pod.containers.entry(name).or_default().limits = Some((resources, applied.cpus));
            }
            Err(error) => tracing::warn!(pod = uid, container = name, %error, "cannot read limits"),
        }
    }
    for (name, container) in &mut pod.containers {
        container.image_id = read_record(&dir, name)
            .map(|record| record.digest)
            .unwrap_or_default();
    }
    pod
}
