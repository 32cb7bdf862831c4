//! What a running container is told when files that it sees were replaced.
//!
//! A volume that is mounted as a whole shows new files at once; one that is mounted in part shows its container what was there
//! when that was started, as in Kubernetes.
//!
//! A program that is not ready may not listen yet: the kernel drops a signal that it has no handler for. It is told all the same,
//! since it may need the new files to become ready, and once more when it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_nodeagent_api::{ContainerConfig, PodConfig, Trouble, VolumeFile};

use super::backoff::Backoff;
use super::state::{Container, HookState, Pod};
use super::{Action, RequestId, State, sessions};

/// How long it may take, in milliseconds.
const TIMEOUT_MS: u64 = 30_000;

/// What a container knows of its files.
#[derive(Clone, Debug, Default)]
pub(super) struct Reload {
    /// The configuration whose files it has read; `None`: a former agent started it.
    loaded: Option<Arc<PodConfig>>,
    /// It was told of them before it was ready, and may not have heard.
    unheard: bool,
    under_way: Option<UnderWay>,
    backoff: Backoff,
}

#[derive(Clone, Debug)]
struct UnderWay {
    id: RequestId,
    written: Arc<PodConfig>,
    ready: bool,
}

impl Reload {
    /// It has read the files as they are.
    pub(super) fn started(files_of: Option<Arc<PodConfig>>) -> Self {
        Self {
            loaded: files_of,
            ..Self::default()
        }
    }

    /// Whether what it was told last, if anything, has come to an end.
    fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }
}

/// Tells those whose files are newer than what they have read.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    for uid in state.uids() {
        let Some(pod) = state.pods.get(&uid).filter(|pod| !pod.stopping) else {
            continue;
        };
        let (Some(config), Some(written)) = (pod.config.clone(), pod.files_of.clone()) else {
            continue;
        };
        let address = sessions::address_of(pod);
        for wanted in &config.containers {
            let Some(hook) = &wanted.reload else { continue };
            let container = state.pods[&uid].containers.get(&wanted.name);
            let Some(container) = container.filter(|c| is_due(c, wanted, &written)) else {
                continue;
            };
            let at_ms = container.reload.backoff.not_before_ms;
            if now_ms < at_ms {
                state.wake_at(at_ms);
                continue;
            }
            let id = state.next_id();
            let pod = state.pods.get_mut(&uid).expect("looked at above");
            let container = pod.containers.get_mut(&wanted.name).expect("looked at above");
            container.reload.under_way = Some(UnderWay {
                id,
                written: written.clone(),
                ready: container.ready(wanted),
            });
            actions.push(Action::Hook {
                id,
                uid: uid.clone(),
                container: wanted.name.clone(),
                address,
                hook: hook.clone(),
                timeout_ms: TIMEOUT_MS,
            });
        }
    }
}

fn is_due(container: &Container, wanted: &ContainerConfig, written: &PodConfig) -> bool {
    let able = container.running()
        && container.ending.is_none()
        && !matches!(container.post_start, HookState::UnderWay(_));
    able && container.reload.is_idle() && {
        let now = seen(wanted, written);
        let unheard = container.reload.unheard && container.ready(wanted);
        match &container.reload.loaded {
            Some(loaded) => unheard || seen(wanted, loaded) != now,
            None => !now.is_empty(),
        }
    }
}

/// The files that a container sees change, by volume.
fn seen<'a>(
    wanted: &ContainerConfig,
    written: &'a PodConfig,
) -> BTreeMap<&'a str, &'a BTreeMap<String, VolumeFile>> {
    let whole = |name: &str| {
        let mut mounts = wanted.mounts.iter();
        mounts.any(|mount| mount.volume == name && mount.sub_path.is_none())
    };
    let volumes = written.volumes.iter().filter(|(name, _)| whole(name));
    volumes
        .filter_map(|(name, volume)| Some((name.as_str(), volume.files()?)))
        .collect()
}

/// The container took it, or did not; false if this is the answer to something else.
pub(super) fn done(
    pod: &mut Pod,
    name: &str,
    now_ms: u64,
    id: RequestId,
    result: &Result<(), String>,
) -> bool {
    let Some(container) = pod.containers.get_mut(name) else {
        return false;
    };
    let reload = &mut container.reload;
    let Some(told) = reload.under_way.take_if(|told| told.id == id) else {
        return false;
    };
    match result {
        Ok(()) => {
            reload.loaded = Some(told.written);
            reload.unheard = !told.ready;
            reload.backoff.reset();
            pod.troubles.clear(Trouble::FailedReload);
        }
        Err(why) => {
            reload.backoff.failed(now_ms);
            let message = format!(
                "container {name}: its files were replaced, and it has not taken that ({why}); it is tried again"
            );
            pod.troubles.note(now_ms, Trouble::FailedReload, message);
        }
    }
    true
}
