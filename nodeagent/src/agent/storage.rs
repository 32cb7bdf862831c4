//! Watches the disk that pods write to: how much is left of it, and what each pod has left there, in small steps.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_images::Limits;
use gantry_nodeagent_api::NodeStorage;
use rustix::fs::statvfs;
use tokio::sync::mpsc;
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

/// The task.
pub(super) struct Meter {
    pub(super) pods: Arc<Pods>,
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
        let mut walks: VecDeque<(String, Walk)> = VecDeque::new();
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
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
            if let Some((uid, walk)) = walks.pop_front() {
                match step(walk).await {
                    Some((walk, None)) => walks.push_back((uid, walk)),
                    Some((_, Some(usage))) => self.tell(uid, usage).await,
                    None => {}
                }
            }
        }
    }

    /// Begins to count the pods whose time has come.
    async fn begin(&self, walks: &mut VecDeque<(String, Walk)>, due: &mut BTreeMap<String, Instant>) {
        let (pods, now) = (self.pods.clone(), Instant::now());
        let mut known = std::mem::take(due);
        let found = move || -> Result<_, RuntimeError> {
            let mut begun = Vec::new();
            let uids = pods.runtime.pods()?;
            known.retain(|uid, _| uids.contains(uid));
            for uid in uids {
                let dir = pods.runtime.pod(&uid);
                if known.get(&uid).is_some_and(|at| now < *at) || dir.is_reduced() {
                    continue;
                }
                known.insert(uid.clone(), now + COUNT_PERIOD);
                // Gone meanwhile, mostly.
                let running = running(&pods.cgroups, &uid).unwrap_or_default();
                begun.extend(Walk::new(&dir, running, MAX_ENTRIES).ok().map(|walk| (uid, walk)));
            }
            Ok((known, begun))
        };
        match tokio::task::spawn_blocking(found).await {
            Ok(Ok((known, begun))) => {
                *due = known;
                let begun = begun
                    .into_iter()
                    .filter(|(uid, _)| walks.iter().all(|(other, _)| other != uid));
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

    async fn tell(&self, uid: String, usage: Usage) {
        let usage = PodUsage {
            containers: usage.containers,
            volumes: usage.volumes,
            entries: usage.entries,
        };
        // Fails only when the agent ends.
        let _ = self.answers.send(Event::PodUsage { uid, usage }).await;
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
