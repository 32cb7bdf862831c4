//! How much one object may make the core do. What goes beyond is held back, and said on the object.

use gantry_catalog::Bounds;

/// Bounds as values: a test that shows what happens without them passes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods that are made or taken down for one owner in one pass: one transaction stays small.
    pub pods_a_pass: usize,
    /// No more pods are made for an owner while so many of its own wait for a place.
    pub waiting_of_owner: usize,
    /// Nor for any owner of a group of namespaces ([`super::group`]) while so many of the group do.
    pub waiting_of_group: usize,
    /// What the templates of one function may take.
    pub templates: Bounds,
    /// The part of the nodes' tables of services, and of a node's configuration, that one group can fill: one in so many.
    pub group_share: usize,
    /// What pods may take of a node's configuration.
    pub config: ConfigLimits,
    /// Events of a namespace that are kept: the newest. Whoever writes a hundred thousand pushes out only his own.
    pub events_in_namespace: usize,
    /// Whether the levels of namespaces are asked for what owners make.
    pub pod_security: bool,
}

/// Files, variables and commands of pods, in bytes. A node is told all of it in one message, and keeps it in its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigLimits {
    /// Of one pod.
    pub pod: usize,
    /// Of all pods of a node: half of a message ([`gantry_nodeagent_api::MAX_MESSAGE_BYTES`]). One group fills its share.
    pub node: usize,
}

impl Default for ConfigLimits {
    fn default() -> Self {
        Self {
            pod: 4 << 20,
            node: gantry_nodeagent_api::MAX_MESSAGE_BYTES / 2,
        }
    }
}

impl Limits {
    /// No bounds at all.
    pub const NONE: Self = Self {
        pods_a_pass: usize::MAX,
        waiting_of_owner: usize::MAX,
        waiting_of_group: usize::MAX,
        templates: Bounds::NONE,
        group_share: 1,
        config: ConfigLimits {
            pod: usize::MAX,
            node: usize::MAX,
        },
        events_in_namespace: usize::MAX,
        pod_security: false,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pods_a_pass: 500,
            waiting_of_owner: 1_000,
            waiting_of_group: 4_000,
            templates: Bounds::default(),
            group_share: 4,
            config: ConfigLimits::default(),
            events_in_namespace: 5_000,
            pod_security: true,
        }
    }
}
