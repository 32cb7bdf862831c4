//! How a container is entered: the process that runs a command in it, and how many of one pod's probes do so at once. What entering
//! costs is the pod's affair: a tenant that probes hundreds of containers each second takes no CPU from others.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pods::Pods;
use crate::guard;
use crate::runtime::sealed;

/// Commands of probes that run at once in one pod.
const PROBES_AT_ONCE: usize = 4;

/// A process that runs what follows in the container.
pub(super) fn command(pods: &Pods, pod: &str, container: &str) -> Command {
    let mut command = sealed::command(&pods.settings.executable);
    command
        .arg("exec")
        .arg("--pod-dir")
        .arg(pods.runtime.pod(pod).path())
        .arg("--container")
        .arg(container);
    let group = pods.cgroups.entering_group(pod);
    if let Some(group) = group.filter(|_| !guard::off("probe-share")) {
        command.arg("--cpu-group").arg(group);
    }
    command
}

/// Places for the commands of probes.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Places {
    /// A place in this pod, when one is free.
    pub(super) async fn enter(&self, pod: &str) -> Option<OwnedSemaphorePermit> {
        if guard::off("probe-share") {
            return None;
        }
        let places = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(pod).and_then(Weak::upgrade).unwrap_or_else(|| {
                all.retain(|_, places| places.strong_count() > 0);
                let places = Arc::new(Semaphore::new(PROBES_AT_ONCE));
                all.insert(pod.to_owned(), Arc::downgrade(&places));
                places
            })
        };
        // Nobody closes it.
        places.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_free(places: &Places, pod: &str) -> bool {
        tokio::time::timeout(Duration::ZERO, places.enter(pod))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn one_pod_fills_its_own_places_only() {
        let places = Places::default();
        let mut held = Vec::new();
        for _ in 0..PROBES_AT_ONCE {
            held.push(places.enter("a").await);
        }
        assert!(!is_free(&places, "a").await);
        assert!(is_free(&places, "b").await);
        held.pop();
        assert!(is_free(&places, "a").await);
    }
}
