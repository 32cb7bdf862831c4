//! Limits on memory above containers. Of all pods together: what is beyond it is the host's, the agent's and the orchestrator's,
//! whatever pods without limits of their own take; where it is reached the kernel ends the worst of the pods (`oom_score_adj`). Of one
//! pod: files in memory that a container leaves behind.

use super::files::{number, write_if_other};
use super::sockets::Whose;
use super::{CgroupError, Cgroups, Hierarchy};
use crate::guard;

/// What pods may take beyond what they have, in bytes, where they have more than the limit allows: so much a pod allocates
/// between two looks, and nothing that runs is to be killed for a limit that came later.
const MARGIN_BYTES: u64 = 64 << 20;

/// The kernel keeps limits in whole pages: one that is asked for may be in force as a little less.
const PAGE_BYTES: u64 = 4096;

impl Cgroups {
    /// Bounds the memory of all pods of this instance together, in bytes. Returns what is in force: more where more is in use.
    pub fn bound_pods(&self, bytes: u64) -> Result<u64, CgroupError> {
        self.make_instance()?;
        self.bound(&self.instance_path(), bytes, Whose::AllPods)
    }

    /// Bounds the memory of a pod's containers together, in bytes; 0 means no limit. The groups are there already.
    pub fn bound_pod(&self, pod: &str, bytes: u64) -> Result<u64, CgroupError> {
        if guard::off("pod-memory") {
            return Ok(0);
        }
        self.bound(&self.pod_path(pod), bytes, Whose::OnePod)
    }

    fn bound(&self, group: &str, bytes: u64, whose: Whose) -> Result<u64, CgroupError> {
        let dir = self.dir("memory", group)?;
        let in_v1 = matches!(self.hierarchy, Hierarchy::V1(_));
        // Since Linux 5.11 it is always so; before, a group did not count what is in those below it.
        let counts_below = dir.join("memory.use_hierarchy");
        if in_v1 && counts_below.exists() {
            write_if_other(&counts_below, "1")?;
        }
        let wanted = limit(bytes, self.working_set(group)?);
        let wanted = no_more(wanted, bytes, number(&self.memory_limit(group)?));
        let in_force = match self.set_memory(group, wanted) {
            Ok(()) => wanted,
            Err(CgroupError::MemoryInUse { used_bytes, .. }) => {
                let more = limit(wanted, used_bytes);
                self.set_memory(group, more)?;
                more
            }
            Err(error) => return Err(error),
        };
        self.bound_sockets(group, bytes, whose)?;
        Ok(in_force)
    }

    fn bound_sockets(&self, group: &str, memory_bytes: u64, whose: Whose) -> Result<(), CgroupError> {
        let (wanted_bytes, used_bytes) =
            match self.set_sockets(group, self.sockets_wanted(memory_bytes, whose)) {
                Err(CgroupError::MemoryInUse {
                    wanted_bytes,
                    used_bytes,
                    ..
                }) => (wanted_bytes, used_bytes),
                done => return done,
            };
        let more = no_more(
            limit(wanted_bytes, used_bytes),
            wanted_bytes,
            self.sockets_limit(group)?,
        );
        match self.set_sockets(group, Some(more)) {
            // More is in use than what is in force, for what is sent is let beyond it: that stays.
            Err(CgroupError::MemoryInUse { .. }) => Ok(()),
            done => done,
        }
    }
}

fn limit(wanted_bytes: u64, in_use_bytes: u64) -> u64 {
    if wanted_bytes == 0 {
        return 0;
    }
    wanted_bytes.max(in_use_bytes.saturating_add(MARGIN_BYTES))
}

/// What of `wanted_bytes` comes in force beside what is: both limits are asked for before each start, and whoever leaves something
/// behind gets nothing more for that than the `asked_bytes`.
fn no_more(wanted_bytes: u64, asked_bytes: u64, in_force: Option<u64>) -> u64 {
    match in_force {
        Some(now) if (1..now.saturating_add(PAGE_BYTES)).contains(&asked_bytes) => wanted_bytes.min(now),
        _ => wanted_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_the_limit_keeps_it_and_a_little() {
        assert_eq!(limit(1 << 30, 0), 1 << 30);
        assert_eq!(limit(1 << 30, 1 << 30), (1 << 30) + MARGIN_BYTES);
        assert_eq!(limit(1, 5), 5 + MARGIN_BYTES);
        assert_eq!(limit(0, 5), 0, "none is none");
    }

    #[test]
    fn nobody_gets_more_by_asking_again() {
        assert_eq!(no_more(8, 5, Some(6)), 6);
        assert_eq!(no_more(8, 5, Some(u64::MAX)), 8);
        assert_eq!(no_more(8, 5, None), 8);
        assert_eq!(
            no_more(2 << 20, 1 << 20, Some(1 << 19)),
            2 << 20,
            "a limit that grows"
        );
        assert_eq!(no_more(2 << 20, 100_000, Some(98_304)), 98_304, "in whole pages");
        assert_eq!(no_more(0, 0, Some(6)), 0, "none is none");
    }
}
