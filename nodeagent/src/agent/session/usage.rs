//! What pods take: the kernel counts, and is asked when somebody wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gantry_nodeagent_api::{NodeMetrics, PodMetrics, SessionFrame, Traffic};
use nix::time::{ClockId, clock_gettime};

use super::{CHUNK_BYTES, Pipe};
use crate::agent::pods::Pods;

const LOOPBACK: &str = "lo";

/// Sends it; returns the last frame.
pub(super) async fn run(pods: &Arc<Pods>, pipe: &mut Pipe) -> SessionFrame {
    let pods = pods.clone();
    let read = tokio::task::spawn_blocking(move || read(&pods));
    let json = match read.await {
        Ok(Ok(json)) => Bytes::from(json),
        Ok(Err(reason)) => return SessionFrame::Error(reason),
        Err(error) => return SessionFrame::Error(error.to_string()),
    };
    for at in (0..json.len()).step_by(CHUNK_BYTES) {
        let piece = json.slice(at..json.len().min(at + CHUNK_BYTES));
        if !pipe.send(SessionFrame::Stdout(piece)).await {
            break;
        }
    }
    SessionFrame::Exit(0)
}

fn read(pods: &Pods) -> Result<Vec<u8>, String> {
    let uids = pods.cgroups.pods().map_err(|e| e.to_string())?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|e| e.to_string())?;
    let usage = NodeMetrics {
        at_nanos: u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap_or(u64::MAX),
        // One that ends meanwhile takes nothing.
        pods: uids
            .into_iter()
            .filter_map(|uid| Some((of_pod(pods, &uid)?, uid)))
            .map(|(usage, uid)| (uid, usage))
            .collect(),
    };
    serde_json::to_vec(&usage).map_err(|e| e.to_string())
}

fn of_pod(pods: &Pods, uid: &str) -> Option<PodMetrics> {
    let (cpu_nanos, memory_bytes) = pods.cgroups.usage(uid).ok()?;
    let pid = *pods.cgroups.pids_of_pod(uid).ok()?.first()?;
    // A pod on the node's own network has no interfaces of its own.
    let own = pods.netns.exists(uid);
    let table = own.then(|| std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok());
    Some(PodMetrics {
        cpu_nanos,
        memory_bytes,
        interfaces: interfaces(&table.flatten().unwrap_or_default()),
    })
}

/// Reads `/proc/net/dev` (`proc_pid_net(5)`): two lines of headings, then eight columns of what came and eight of what went.
fn interfaces(table: &str) -> BTreeMap<String, Traffic> {
    let row = |line: &str| {
        let (name, columns) = line.split_once(':')?;
        let columns: Vec<u64> = columns
            .split_ascii_whitespace()
            .map_while(|c| c.parse().ok())
            .collect();
        let &[
            received_bytes,
            received_packets,
            _,
            _,
            _,
            _,
            _,
            _,
            sent_bytes,
            sent_packets,
            ..,
        ] = &columns[..]
        else {
            return None;
        };
        let traffic = Traffic {
            received_packets,
            received_bytes,
            sent_packets,
            sent_bytes,
        };
        Some((name.trim().to_owned(), traffic)).filter(|(name, _)| name != LOOPBACK)
    };
    table.lines().skip(2).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                     lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0:1500 12 0 0 0 0 0 3 700 8 0 0 0 0 0 0\n  cut: 1 2\n";
        let traffic = Traffic {
            received_packets: 12,
            received_bytes: 1500,
            sent_packets: 8,
            sent_bytes: 700,
        };
        assert_eq!(interfaces(table), BTreeMap::from([("eth0".to_owned(), traffic)]));
        assert!(interfaces("").is_empty());
        let own = std::fs::read_to_string("/proc/self/net/dev").unwrap();
        let here = interfaces(&own);
        assert_eq!(
            here.len(),
            own.lines()
                .skip(2)
                .filter(|l| !l.trim().starts_with("lo:"))
                .count()
        );
    }
}
