//! The ways in which a plan can be wrong.

use gantry_topology::{CpuId, CpuSet, NumaId};

use crate::{NodeName, PodUid};

/// Something that a plan must never do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Violation {
    /// It does not continue the plan in force.
    #[error("plan {id} with parent {parent} does not follow plan {current}")]
    Lineage {
        /// The plan's number.
        id: u64,
        /// Its parent's number.
        parent: u64,
        /// The number of the plan in force.
        current: u64,
    },
    /// Two pods (or containers) have a CPU, or one has what another still holds.
    #[error("node {node}: CPU {cpu} belongs to {owners:?}")]
    TwoOwners {
        /// The node.
        node: NodeName,
        /// The CPU.
        cpu: CpuId,
        /// Pod uids, twice the same if two of its containers have the CPU.
        owners: Vec<PodUid>,
    },
    /// A reserved CPU is given out exclusively.
    #[error("node {node}: pod {pod} gets reserved CPUs {cpus}")]
    Reserved {
        /// The node.
        node: NodeName,
        /// The pod.
        pod: PodUid,
        /// The reserved CPUs.
        cpus: CpuSet,
    },
    /// A CPU is given out that the node does not have.
    #[error("node {node}: pod {pod} gets CPUs {cpus}, which are not online")]
    NotOnline {
        /// The node.
        node: NodeName,
        /// The pod.
        pod: PodUid,
        /// The CPUs.
        cpus: CpuSet,
    },
    /// The shared pool is not what nobody has exclusively.
    #[error("node {node}: the shared pool is {pool} and must be {expected}")]
    WrongPool {
        /// The node.
        node: NodeName,
        /// As in the plan.
        pool: CpuSet,
        /// Online, without exclusive, held and idle CPUs.
        expected: CpuSet,
    },
    /// More is promised than the shared pool has, or nothing is left of it.
    #[error("node {node}: the shared pool {pool} cannot carry {promised_milli}m CPU")]
    PoolTooSmall {
        /// The node.
        node: NodeName,
        /// The pool.
        pool: CpuSet,
        /// The sum of the promises.
        promised_milli: u64,
    },
    /// A sibling of a whole-core pod's CPU belongs to somebody else.
    #[error("node {node}: CPU {cpu} is an SMT sibling of pod {pod}'s whole cores and belongs to {other}")]
    SplitCore {
        /// The node.
        node: NodeName,
        /// The pod with whole cores.
        pod: PodUid,
        /// The sibling.
        cpu: CpuId,
        /// Who has it.
        other: PodUid,
    },
    /// A container gets other sizes than it asked for.
    #[error("pod {pod}: container {container} gets {granted} and asked for {wanted}")]
    WrongSize {
        /// The pod.
        pod: PodUid,
        /// The container.
        container: String,
        /// What the plan says.
        granted: String,
        /// What the request says.
        wanted: String,
    },
    /// A resize is said to be pending, and yet the place is not as before.
    #[error("pod {pod}: its resize is pending, but its place is not as before")]
    PendingChanged {
        /// The pod.
        pod: PodUid,
    },
    /// A pod that must be on one NUMA node is on several.
    #[error("pod {pod} must be on one NUMA node and is on {numa_nodes:?}")]
    NumaPolicy {
        /// The pod.
        pod: PodUid,
        /// Where it is.
        numa_nodes: Vec<NumaId>,
    },
    /// Memory is granted on a NUMA node that the pod may not use.
    #[error("pod {pod} has memory on NUMA node {numa} and may not use it")]
    MemoryOutside {
        /// The pod.
        pod: PodUid,
        /// The NUMA node.
        numa: NumaId,
    },
    /// More memory is given out than there is.
    #[error(
        "node {node}: NUMA node {numa} has {capacity_bytes} bytes for pods, and {granted_bytes} are taken"
    )]
    Memory {
        /// The node.
        node: NodeName,
        /// The NUMA node.
        numa: NumaId,
        /// Granted, with what is held beyond grants.
        granted_bytes: u64,
        /// What there is.
        capacity_bytes: u64,
    },
    /// More ephemeral storage is given out than there is.
    #[error(
        "node {node} has {capacity_bytes} bytes of ephemeral storage for pods, and {granted_bytes} are granted"
    )]
    Storage {
        /// The node.
        node: NodeName,
        /// Granted.
        granted_bytes: u64,
        /// What there is.
        capacity_bytes: u64,
    },
    /// More hugepages are given out than there are.
    #[error(
        "node {node}: NUMA node {numa} has {capacity_bytes} bytes in hugepages of {page_bytes}, and {granted_bytes} are taken"
    )]
    Hugepages {
        /// The node.
        node: NodeName,
        /// The NUMA node.
        numa: NumaId,
        /// The page size.
        page_bytes: u64,
        /// Granted.
        granted_bytes: u64,
        /// What there is.
        capacity_bytes: u64,
    },
    /// A pod is where its selector, `nodeName` or volumes do not let it.
    #[error("pod {pod} may not be on node {node}")]
    WrongNode {
        /// The pod.
        pod: PodUid,
        /// The node.
        node: NodeName,
    },
    /// A pod gets a place on a node that takes none.
    #[error("pod {pod} gets a place on node {node}, which takes no new pods")]
    NotSchedulable {
        /// The pod.
        pod: PodUid,
        /// The node.
        node: NodeName,
    },
    /// A pod gets a place on a node that has as many as it can have.
    #[error("node {node}: {pods} pods have a place or still hold one, and {max_pods} can")]
    TooManyPods {
        /// The node.
        node: NodeName,
        /// How many there would be.
        pods: usize,
        /// How many there can be.
        max_pods: u32,
    },
    /// Two pods that must not meet are on one node.
    #[error("node {node}: pods {pod} and {other} must not be together ({key})")]
    AntiAffinity {
        /// The node.
        node: NodeName,
        /// The pod that was placed.
        pod: PodUid,
        /// The other one.
        other: PodUid,
        /// The key that they share.
        key: String,
    },
    /// Only part of a group gets places.
    #[error("group {group} gets places for some of its pods only, {missing} has none")]
    PartialGroup {
        /// The group.
        group: String,
        /// A pod left out.
        missing: PodUid,
    },
    /// A placed pod is on another node now.
    #[error("pod {pod} moves from node {from} to node {to}")]
    Moved {
        /// The pod.
        pod: PodUid,
        /// Where it was.
        from: NodeName,
        /// Where the plan puts it.
        to: NodeName,
    },
    /// A placed pod lost its place though nobody deleted it.
    #[error("pod {pod} loses its place")]
    Lost {
        /// The pod.
        pod: PodUid,
    },
    /// A pod that nobody asked for has a place.
    #[error("pod {pod} has a place and does not exist")]
    Unknown {
        /// The pod.
        pod: PodUid,
    },
    /// A resize gives a pod CPUs that are not a superset (grow) or a subset (shrink) of what it had.
    #[error(
        "pod {pod}: container {container} had CPUs {before} and gets {after}: it loses some and gains others"
    )]
    Shuffled {
        /// The pod.
        pod: PodUid,
        /// The container.
        container: String,
        /// CPUs before.
        before: CpuSet,
        /// CPUs after.
        after: CpuSet,
    },
}
