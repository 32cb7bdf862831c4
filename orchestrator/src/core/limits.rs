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
}

impl Limits {
    /// No bounds at all.
    pub const NONE: Self = Self {
        pods_a_pass: usize::MAX,
        waiting_of_owner: usize::MAX,
        waiting_in_namespace: usize::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pods_a_pass: 500,
            waiting_of_owner: 1_000,
            waiting_in_namespace: 4_000,
        }
    }
}
