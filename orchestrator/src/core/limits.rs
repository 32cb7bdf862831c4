//! How much one object may make the core do. What goes beyond is held back, and said on the object.

/// Bounds as values: a test that shows what happens without them passes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods that are made or taken down for one owner in one pass: one transaction stays small.
    pub pods_a_pass: usize,
    /// No more pods are made for an owner while so many of its own wait for a place.
    pub waiting_of_owner: usize,
    /// Nor for any owner of a namespace while so many of the namespace do.
    pub waiting_in_namespace: usize,
    /// Instructions that the templates of one function may take (a loop's body counts each time).
    pub template_fuel: u64,
    /// Bytes of all files of one function: what a ConfigMap may hold.
    pub rendered_bytes: usize,
    /// Instructions for templates that are new in one pass; others have their turn in the next ones.
    pub fuel_a_pass: u64,
    /// The part of the nodes' tables of services that one namespace can fill: one in so many.
    pub namespace_share: usize,
    /// Events of a namespace that are kept: the newest. Whoever writes a hundred thousand pushes out only his own.
    pub events_in_namespace: usize,
    /// Whether the levels of namespaces are asked for what owners make.
    pub pod_security: bool,
}

impl Limits {
    /// No bounds at all.
    pub const NONE: Self = Self {
        pods_a_pass: usize::MAX,
        waiting_of_owner: usize::MAX,
        waiting_in_namespace: usize::MAX,
        template_fuel: u64::MAX >> 1,
        rendered_bytes: usize::MAX,
        fuel_a_pass: u64::MAX,
        namespace_share: 1,
        events_in_namespace: usize::MAX,
        pod_security: false,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pods_a_pass: 500,
            waiting_of_owner: 1_000,
            waiting_in_namespace: 4_000,
            template_fuel: 200_000,
            rendered_bytes: 1 << 20,
            fuel_a_pass: 1_000_000,
            namespace_share: 4,
            events_in_namespace: 5_000,
            pod_security: true,
        }
    }
}
