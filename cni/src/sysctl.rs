//! Kernel settings of the calling thread's network namespace.

use std::path::PathBuf;

use crate::error::{CniError, file};

/// Seconds for which the kernel waits for the rest of a datagram (it waits 30). Fragments of one come within milliseconds.
const REASSEMBLY_S: u64 = 1;
/// Bytes that wait in one network namespace (the kernel lets 4 MiB). All senders fill the same: a group of pods sends 4,096 fragments
/// a second (`ebpf/common/src/share.rs`), so within the second that they wait at most two seconds' worth, the end of one and the
/// start of the next: 8,192, for which the kernel counts 2,304 bytes each at an MTU of 1,500 (`skb->truesize`), together 18 MiB.
/// Seven groups that do nothing else at one receiver leave room for others; on a node they take 18 MiB each, wherever it is.
const REASSEMBLY_BYTES: u64 = 128 << 20;

/// Entries in the kernel's tables of neighbours, which are of all network namespaces: up to the first nothing is cleared away, from
/// the second on what is older than 5 seconds, beyond the third nobody gets one. Pods cannot fill them (`pod.rs`) but with
/// NET_ADMIN; one that nobody answers takes its place for three seconds, so the third bears 20,000 a second, in 32 MiB.
const NEIGHBOURS: [(&str, u64); 3] = [
    ("gc_thresh1", 4096),
    ("gc_thresh2", 32_768),
    ("gc_thresh3", 65_536),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// Writes `/proc/sys/net/<name>` unless what is there is right.
fn set_unless(name: &str, value: &str, right: impl Fn(&str) -> bool) -> Result<(), CniError> {
    let path = path(name);
    let present = std::fs::read_to_string(&path).map_err(file("read", &path))?;
    if right(present.trim()) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(file("write", &path))
}

fn set(name: &str, value: &str) -> Result<(), CniError> {
    set_unless(name, value, |present| present == value)
}

fn raise(name: &str, least: u64) -> Result<(), CniError> {
    set_unless(name, &least.to_string(), |present| {
        present.parse().is_ok_and(|n: u64| n >= least)
    })
}

fn lower(name: &str, most: u64) -> Result<(), CniError> {
    set_unless(name, &most.to_string(), |present| {
        present.parse().is_ok_and(|n: u64| n <= most)
    })
}

/// The host must route between pods' links and the outside, put together what pods send in pieces, and know neighbours.
pub fn prepare_host() -> Result<(), CniError> {
    set("ipv4/ip_forward", "1")?;
    reassembly()?;
    for family in ["ipv4", "ipv6"] {
        for (name, least) in NEIGHBOURS {
            let name = format!("{family}/neigh/default/{name}");
            // Only the machine's own network namespace shows them.
            if path(&name).exists() {
                raise(&name, least)?;
            }
        }
    }
    Ok(())
}

/// Settings of a host's end: packets from pods arrive here although the route back to them is elsewhere
/// (loose reverse path filter, RFC 3704), and there is no IPv6 on it.
pub fn prepare_link(name: &str) -> Result<(), CniError> {
    set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    without_ipv6(name)
}

/// Settings of a pod: no IPv6 on its link, which has no fixed neighbours and leads nowhere.
pub fn prepare_pod(link: &str) -> Result<(), CniError> {
    without_ipv6(link)?;
    reassembly()
}

fn reassembly() -> Result<(), CniError> {
    lower("ipv4/ipfrag_time", REASSEMBLY_S)?;
    raise("ipv4/ipfrag_high_thresh", REASSEMBLY_BYTES)
}

fn without_ipv6(link: &str) -> Result<(), CniError> {
    if path("ipv6").exists() {
        set(&format!("ipv6/conf/{link}/disable_ipv6"), "1")?;
    }
    Ok(())
}
