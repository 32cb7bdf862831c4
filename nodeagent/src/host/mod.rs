//! What the agent reads from and writes to the host itself.

pub mod cgroup;
pub mod sysctl;
pub mod topology;
