//! What a node is made of, and the one allocator that divides it. Pure: no I/O, no async, no clock.

mod alloc;
mod cpuset;
mod pack;
mod tree;

pub use alloc::{Available, CpuWish, Misfit, Numa, Smt, allocate};
pub use cpuset::{CpuSet, ParseCpuSetError};
pub use tree::{Cpu, CpuId, L3Id, NumaId, NumaNode, PhysicalCore, Topology};
