//! Watches the disk that pods write to: how much is left of it, and what each pod has left there, in small steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_images::Limits;
use gantry_nodeagent_api::{ClaimId, NodeStorage, PodUid};
use rustix::fs::statvfs;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::pods::Pods;
use crate::core::{DiskSpace, Event, MAX_ENTRIES, PodUsage};
use crate::host::cgroup::{CgroupError, Cgroups};
use crate::runtime::{Running, RuntimeError, Usage, Walk};

/// How often the disk is measured.
const SPACE_PERIOD: Duration = Duration::from_secs(2);
/// How long after a count a pod is counted again.
const COUNT_PERIOD: Duration = Duration::from_secs(10);
/// Entries that are looked at in one go, and the pause after it: at most 25,000 a second, some percent of one CPU.
const ENTRIES_AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);
/// The pause when nothing is being counted.
const IDLE: Duration = Duration::from_millis(500);

/// Whose files are counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Pod(PodUid),
    Claim(ClaimId),
}

/// The task.
pub(super) struct Meter {
    pub(super) pods: Arc<Pods>,
    /// The claims that are to be counted.
    pub(super) claims: watch::Receiver<BTreeSet<ClaimId>>,
    pub(super) answers: mpsc::Sender<Event>,
}

/// The file system of a directory; `kept_bytes` of it are not for pods, or as much as images leave free.
pub(super) fn of(dir: &Path, kept_bytes: Option<u64>) -> std::io::Result<NodeStorage> {
    let now = statvfs(dir)?;
    let bytes = now.f_blocks.saturating_mul(now.f_frsize);
    let reserved_bytes = kept_bytes.unwrap_or(Limits::default().kept_bytes(bytes));
    Ok(NodeStorage {
        bytes,
        reserved_bytes,
    })
}

fn measure(dir: &Path, kept_bytes: Option<u64>) -> std::io::Result<DiskSpace> {
    let now = statvfs(dir)?;
    Ok(DiskSpace {
        free_bytes: now.f_bavail.saturating_mul(now.f_frsize),
        kept_bytes: of(dir, kept_bytes)?.reserved_bytes,
        free_entries: now.f_favail,
        kept_entries: Limits::default().kept_files(now.f_files),
    })
}

impl Meter {
    /// Until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut walks: VecDeque<(Of, Walk)> = VecDeque::new();
        let mut due: BTreeMap<Of, Instant> = BTreeMap::new();
        let (mut measured, mut listed) = (None::<Instant>, None::<Instant>);
        loop {
            let pause = if walks.is_empty() { IDLE } else { PAUSE };
            // Cancel-safe: time passes anyway.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return,
            }
            if measured.is_none_or(|at| at.elapsed() >= SPACE_PERIOD) {
                measured = Some(Instant::now());
                self.tell_space().await;
            }
            if listed.is_none_or(|at| at.elapsed() >= IDLE) {
                listed = Some(Instant::now());
                self.begin(&mut walks, &mut due).await;
            }
            if let Some((of, walk)) = walks.pop_front() {
                match step(walk).await {
                    Some((walk, None)) => walks.push_back((of, walk)),
                    Some((_, Some(usage))) => self.tell(of, usage).await,
                    None => {}
                }
            }
        }
    }

    /// Begins to count the pods and claims whose time has come.
    async fn begin(&self, walks: &mut VecDeque<(Of, Walk)>, due: &mut BTreeMap<Of, Instant>) {
        let (pods, claims, now) = (self.pods.clone(), self.claims.borrow().clone(), Instant::now());
        let mut known = std::mem::take(due);
        let found = move || -> Result<_, RuntimeError> {
            let uids = pods.runtime.pods()?.into_iter();
            let all: BTreeSet<Of> = uids
                .map(Of::Pod)
                .chain(claims.into_iter().map(Of::Claim))
                .collect();
            known.retain(|of, _| all.contains(of));
            let mut begun = Vec::new();
            for of in all {
                if known.get(&of).is_some_and(|at| now < *at) || is_reduced(&pods, &of) {
                    continue;
                }
                known.insert(of.clone(), now + COUNT_PERIOD);
                // Gone meanwhile, mostly.
                begun.extend(walk(&pods, &of).ok().map(|walk| (of, walk)));
            }
            Ok((known, begun))
        };
        match tokio::task::spawn_blocking(found).await {
            Ok(Ok((known, begun))) => {
                *due = known;
                let begun = begun
                    .into_iter()
                    .filter(|(of, _)| walks.iter().all(|(other, _)| other != of));
                let begun: Vec<_> = begun.collect();
                walks.extend(begun);
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot list the pods whose files are to be counted"),
            Err(_) => {}
        }
    }

    async fn tell_space(&self) {
        let settings = self.pods.settings.clone();
        let measure = move || measure(&settings.agent_dir, settings.reserved_storage_bytes);
        match tokio::task::spawn_blocking(measure).await {
            // Fails only when the agent ends.
            Ok(Ok(space)) => drop(self.answers.send(Event::DiskSpace(space)).await),
            Ok(Err(error)) => tracing::warn!(%error, "cannot measure the disk"),
            Err(_) => {}
        }
    }

    async fn tell(&self, of: Of, usage: Usage) {
        let event = match of {
            Of::Pod(uid) => {
                let usage = PodUsage {
                    containers: usage.containers,
                    volumes: usage.volumes,
                    entries: usage.entries,
                };
                Event::PodUsage { uid, usage }
            }
            Of::Claim(claim) => Event::ClaimUsage {
                claim,
                bytes: usage.volumes.into_values().fold(0, u64::saturating_add),
                entries: usage.entries,
            },
        };
        // Fails only when the agent ends.
        let _ = self.answers.send(event).await;
    }
}

/// A pod of which nothing is left but its records.
fn is_reduced(pods: &Pods, of: &Of) -> bool {
    match of {
        Of::Pod(uid) => pods.runtime.pod(uid).is_reduced(),
        Of::Claim(_) => false,
    }
}

fn walk(pods: &Pods, of: &Of) -> Result<Walk, RuntimeError> {
    match of {
        Of::Pod(uid) => {
            let running = running(&pods.cgroups, uid).unwrap_or_default();
            Walk::new(&pods.runtime.pod(uid), running, MAX_ENTRIES)
        }
        Of::Claim(id) => Walk::of_folder(&pods.claims.path(id)?, MAX_ENTRIES),
    }
}

fn running(cgroups: &Cgroups, uid: &str) -> Result<Vec<Running>, CgroupError> {
    let containers = cgroups.containers(uid)?.into_iter();
    let running = containers.map(|container| {
        Ok(Running {
            pids: cgroups.pids_of_container(uid, &container)?,
            group: cgroups.container_path(uid, &container),
            container,
        })
    });
    running.collect()
}

async fn step(mut walk: Walk) -> Option<(Walk, Option<Usage>)> {
    let step = move || {
        let usage = walk.step(ENTRIES_AT_ONCE);
        (walk, usage)
    };
    tokio::task::spawn_blocking(step).await.ok()
}
