//! Memory of TCP and UDP sockets in cgroup v1, where `memory.limit_in_bytes` does not count it (v2 counts it in `memory.max`): what waits
//! to be read or sent has a counter of its own, `memory.kmem.tcp` (admin-guide/cgroup-v1/memory.rst, 2.7.2), for UDP too
//! (`__sk_mem_raise_allocated`, net/core/sock.c). Sockets are counted where the group of the process that makes them was given a limit
//! before (`memcg1_tcpmem_active`, mm/memcontrol-v1.h): so each group gets one, also where one above would do.
//!
//! What a pod has in sockets comes on top of its limit on memory, up to as much again: v1 has no limit on both together. Beyond any
//! limit the kernel lets each connection have a first piece (`sk_stream_moderate_sndbuf` and what follows it, net/core/sock.c; some
//! 70 KiB): how many connections there are is a matter of the limit on memory, where each counts with some 8 KiB.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::files::{number, read, try_write};
use super::{CgroupError, Cgroups, Hierarchy};
use crate::guard;
use crate::host::topology;

/// Of how many parts of the node's memory all pods may have one in sockets: what a kernel holds everybody back at by itself
/// (`tcp_init_mem`, net/ipv4/tcp.c).
const ALL_PODS: u64 = 16;
/// And of those how many one pod.
const ONE_POD: u64 = 4 * ALL_PODS;

/// Whose sockets are counted together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// Those of a container or a pod.
    OnePod,
    /// Those of all pods.
    AllPods,
}

impl Cgroups {
    /// Most bytes of sockets for a group with a limit on memory (0: none); `None` where nothing bounds them.
    pub(super) fn sockets_wanted(&self, memory_bytes: u64, whose: Whose) -> Option<u64> {
        if guard::off("socket-memory") {
            return None;
        }
        let node = fs::read_to_string("/proc/meminfo").ok();
        let share = node.and_then(|node| share(&node, whose));
        share
            .into_iter()
            .chain((memory_bytes > 0).then_some(memory_bytes))
            .min()
    }

    /// Puts a limit on sockets in force. Where more is in use nothing is changed ([`CgroupError::MemoryInUse`]); v2, and a v1 that does
    /// not count sockets, have no such limit.
    pub(super) fn set_sockets(&self, group: &str, bytes: Option<u64>) -> Result<(), CgroupError> {
        let Some(file) = self.sockets_file(group, "limit_in_bytes")? else {
            return Ok(());
        };
        let value = bytes.map_or("-1".to_owned(), |bytes| bytes.to_string());
        match try_write(&file, &value) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(CgroupError::MemoryInUse {
                group: group.to_owned(),
                wanted_bytes: bytes.unwrap_or_default(),
                used_bytes: self.sockets_used(group)?,
            }),
            Err(source) => Err(CgroupError::Io {
                operation: format!("write `{value}` to"),
                path: file,
                source,
            }),
        }
    }

    fn sockets_used(&self, group: &str) -> Result<u64, CgroupError> {
        Ok(self.sockets_number(group, "usage_in_bytes")?.unwrap_or_default())
    }

    /// In force; `None` where there is no such limit.
    pub(super) fn sockets_limit(&self, group: &str) -> Result<Option<u64>, CgroupError> {
        self.sockets_number(group, "limit_in_bytes")
    }

    fn sockets_number(&self, group: &str, what: &str) -> Result<Option<u64>, CgroupError> {
        let file = self.sockets_file(group, what)?;
        let text = file.map(|file| read(&file)).transpose()?;
        Ok(text.and_then(|text| number(&text)))
    }

    /// A file of the counter of sockets, where there is one.
    pub(super) fn sockets_file(&self, group: &str, what: &str) -> Result<Option<PathBuf>, CgroupError> {
        if matches!(self.hierarchy, Hierarchy::V2 { .. }) {
            return Ok(None);
        }
        let file = self.dir("memory", group)?.join(format!("memory.kmem.tcp.{what}"));
        Ok(file.exists().then_some(file))
    }
}

/// A share of the memory that `proc_meminfo(5)` tells of.
fn share(meminfo: &str, whose: Whose) -> Option<u64> {
    let total = topology::total_in(meminfo)?;
    let parts = match whose {
        Whose::OnePod => ONE_POD,
        Whose::AllPods => ALL_PODS,
    };
    Some(total / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pods_leave_something_and_one_pod_leaves_something_to_others() {
        let node = "MemTotal:       16777216 kB\nMemFree:  1 kB\n";
        assert_eq!(share(node, Whose::AllPods), Some(1 << 30));
        assert_eq!(share(node, Whose::OnePod), Some(256 << 20));
        assert_eq!(share("", Whose::AllPods), None);
    }
}
