//! Looks for pods that take more than they should where the kernel or a shim holds them back in silence.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_nodeagent_api::Trouble;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::network::Network;
use super::pods::{Pods, log_dir};
use crate::core::{Event, PodRef};
use crate::host::cgroup::POD_PIDS_LIMIT;
use crate::runtime::{LOG_MAX_BYTES, PodDir};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// A log that is full sooner is written too fast.
const FAST: Duration = Duration::from_secs(5);

/// What was seen of the node.
#[derive(Default)]
struct Node {
    pods: BTreeMap<String, Seen>,
    /// Flows beyond their senders' shares so far.
    beyond: BTreeMap<Ipv4Addr, u32>,
}

/// What was seen of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Since its groups were made.
    refused_processes: u64,
    /// A container that writes its log too fast at this moment.
    fast_log: Option<String>,
}

/// Looks, until cancelled.
pub(super) async fn run(
    pods: Arc<Pods>,
    network: Arc<Network>,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let mut known = Node::default();
    loop {
        // Cancel-safe: time passes anyway.
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = cancel.cancelled() => return,
        }
        let (pods, network) = (pods.clone(), network.clone());
        let Ok(seen) = tokio::task::spawn_blocking(move || look(&pods, &network)).await else {
            return;
        };
        for (pod, trouble, message) in troubles(&known, &seen) {
            let event = Event::Trouble {
                pod,
                trouble,
                message,
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
        known = seen;
    }
}

fn troubles(before: &Node, now: &Node) -> Vec<(PodRef, Trouble, String)> {
    let mut all = Vec::new();
    for (uid, seen) in &now.pods {
        let found = before
            .pods
            .get(uid)
            .map_or_else(Vec::new, |before| compare(before, seen));
        let of = |(trouble, message)| (PodRef::Uid(uid.clone()), trouble, message);
        all.extend(found.into_iter().map(of));
    }
    for (address, count) in &now.beyond {
        if before.beyond.get(address).copied().unwrap_or(0) != *count {
            let why = "it opens more connections by way of services than its share: the newest are not kept for as long";
            all.push((PodRef::Address(*address), Trouble::FlowLimit, why.to_owned()));
        }
    }
    all
}

fn look(pods: &Pods, network: &Network) -> Node {
    let uids = pods.runtime.pods().unwrap_or_default().into_iter();
    let running = uids.filter(|uid| !pods.runtime.pod(uid).is_reduced());
    let seen = running.map(|uid| {
        let seen = Seen {
            refused_processes: pods.cgroups.refused_processes(&uid),
            fast_log: fast_log(&pods.runtime.pod(&uid)),
        };
        (uid, seen)
    });
    Node {
        pods: seen.collect(),
        // Without a datapath there are no flows.
        beyond: network.beyond_shares().unwrap_or_default(),
    }
}

/// A container whose log became full a moment ago, and had been begun a moment before.
fn fast_log(dir: &PodDir) -> Option<String> {
    let names = |path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_full = |log: &Path| log.extension().is_some_and(|e| e == "1");
    let fast = |log: std::fs::DirEntry| {
        let full = log.metadata().ok().filter(|_| is_full(&log.path()))?;
        let (begun, ended) = (full.created().ok()?, full.modified().ok()?);
        let (took, since) = (
            ended.duration_since(begun).ok()?,
            ended.elapsed().unwrap_or_default(),
        );
        Some(took < FAST && since < 2 * PERIOD)
    };
    let containers = names(dir.path().join("logs")).filter_map(|entry| entry.file_name().into_string().ok());
    let mut containers =
        containers.filter(|name| names(log_dir(dir, name)).any(|log| fast(log) == Some(true)));
    containers.next()
}

/// What is wrong with a pod that was so and now is so.
fn compare(before: &Seen, now: &Seen) -> Vec<(Trouble, String)> {
    let mut troubles = Vec::new();
    if now.refused_processes > before.refused_processes {
        let why = format!(
            "it wanted more processes and threads than {POD_PIDS_LIMIT}, the most that a pod may have"
        );
        troubles.push((Trouble::PidsLimit, why));
    }
    if let Some(name) = &now.fast_log {
        let why = format!(
            "container {name} fills its log of {} MiB in less than {} s: only the last two are kept, and what comes faster waits",
            LOG_MAX_BYTES >> 20,
            FAST.as_secs()
        );
        troubles.push((Trouble::LogRateLimit, why));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(refused_processes: u64, fast_log: Option<&str>) -> Seen {
        Seen {
            refused_processes,
            fast_log: fast_log.map(str::to_owned),
        }
    }

    #[test]
    fn only_what_goes_on_is_told() {
        let reasons = |before, now| -> Vec<&str> {
            let troubles = compare(&before, &now).into_iter();
            troubles.map(|(trouble, _)| trouble.reason()).collect()
        };
        assert_eq!(reasons(seen(3, Some("c")), seen(3, None)), [""; 0]);
        assert_eq!(
            reasons(seen(3, None), seen(4, Some("c"))),
            ["PidsLimit", "LogRateLimit"]
        );
    }

    #[test]
    fn a_log_that_was_full_at_once_is_found() {
        let pod = tempfile::tempdir().unwrap();
        let dir = PodDir::new(pod.path());
        std::fs::create_dir_all(log_dir(&dir, "c")).unwrap();
        std::fs::write(log_dir(&dir, "c").join("0.log"), "x").unwrap();
        assert_eq!(fast_log(&dir), None);
        std::fs::write(log_dir(&dir, "c").join("0.log.1"), "x").unwrap();
        assert_eq!(fast_log(&dir), Some("c".to_owned()));
    }
}
