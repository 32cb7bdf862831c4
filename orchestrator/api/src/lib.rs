//! The kinds of the API: Gantry's own (group `gantry.dev`), and shorthands over Kubernetes' own types.

mod kinds;
mod operation;

pub use kinds::*;
pub use operation::*;

pub use gantry_catalog::{NetworkFunctionSpec, NetworkServiceSpec, NfPackageSpec};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

/// API group of Gantry's own kinds.
pub const GROUP: &str = "gantry.dev";
/// Version of that group.
pub const VERSION: &str = "v1";

/// Labels and annotations with a meaning.
pub mod labels {
    /// On every object of a NetworkFunction: its name.
    pub const NF: &str = "gantry.dev/network-function";
    /// On every object of a NetworkService: its name.
    pub const SERVICE: &str = "gantry.dev/network-service";
    /// Annotation on an Operation: uid of its NetworkFunction, since a later one may have the same name.
    pub const FUNCTION_UID: &str = "gantry.dev/function-uid";
    /// On pods and config maps of a NetworkFunction: the revision (hash of package, values, peers).
    pub const REVISION: &str = "gantry.dev/revision";
    /// On pods of a NetworkFunction: the number of the instance, from 0 (Kubernetes' label of StatefulSets' pods).
    pub const INDEX: &str = "apps.kubernetes.io/pod-index";
    /// Annotation on a pod: JSON `PodExtras` (what a Kubernetes PodSpec cannot say: exclusive CPUs, SMT, subnets behind it, group, drain).
    pub const EXTRAS: &str = "gantry.dev/extras";
    /// Annotation on a pod: JSON of the drain's state (`DrainState`), while it drains.
    pub const DRAIN: &str = "gantry.dev/drain";
    /// Annotation on a pod of a NetworkFunction, any value: somebody wants it off its node. It is replaced, and leaves when its
    /// sessions have ended.
    pub const EVICT: &str = "gantry.dev/evict";
    /// Annotation on a Namespace, written by the API server: who has made it. What is in it counts as that user's.
    pub const REQUESTER: &str = "gantry.dev/requester";
}
