//! Deterministic simulation: the real orchestrator core, planner and agent cores over a virtual clock, fake hosts and a seeded
//! scheduler with faults. After every step oracles look at everything. A seed is a history: the same seed replays it exactly.

mod control;
mod damage;
mod host;
mod node;
mod oracle;
mod rng;
mod sabotage;
mod sim;
mod topology;
mod traffic;
mod users;

pub use sabotage::Sabotage;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Events handled.
    pub steps: u64,
    /// Virtual milliseconds until all was at rest.
    pub virtual_ms: u64,
    /// Plans committed.
    pub plans: u64,
    /// Operations that came to an end as asked.
    pub operations: u64,
    /// Sessions that were established.
    pub sessions: u64,
    /// Sessions that a fault cut (a kill, a reboot, an undeployment).
    pub sessions_cut_by_faults: u64,
    /// Faults injected.
    pub faults: u64,
}

/// An oracle that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{oracle} does not hold at {at_ms} ms (step {step}): {what}\n  replay: cargo xtask sim --seeds 1 --from {seed}"
)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// Virtual time in milliseconds.
    pub at_ms: u64,
    /// Number of the event.
    pub step: u64,
    /// Which oracle.
    pub oracle: Oracle,
    /// What was seen.
    pub what: String,
    /// What had happened before, oldest first: virtual milliseconds and words.
    pub history: Vec<String>,
}

/// What must hold after every step (the last two: at the end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// No CPU is exclusive to one container and in use by another on a host.
    OneOwner,
    /// A node's generation rises with its content and never repeats with other content.
    Generations,
    /// Every plan that is made passes the checker.
    PlanIsValid,
    /// Every plan replaces its parent.
    PlanLineage,
    /// An established session ends by itself, or by a fault, never by a scale, resize or upgrade.
    Sessions,
    /// An operation that has succeeded has made the pods as asked.
    SucceededIsDone,
    /// A receipt does not claim that a pod lost nothing when it did.
    Receipts,
    /// When faults stop, everything comes to rest as asked within bounded time.
    Converges,
    /// When faults stop, every operation comes to an end.
    OperationsEnd,
    /// Nothing of an object that cannot be read is stopped.
    Untouched,
    /// An owner gets no more pods than may wait, whatever it asks for.
    Bounded,
}

impl std::fmt::Display for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OneOwner => "`no CPU has two owners`",
            Self::Generations => "`generations rise`",
            Self::PlanIsValid => "`each plan passes the checker`",
            Self::PlanLineage => "`each plan replaces its parent`",
            Self::Sessions => "`no session is cut by what was asked`",
            Self::SucceededIsDone => "`what succeeded is done`",
            Self::Receipts => "`receipts tell what was lost`",
            Self::Converges => "`everything converges`",
            Self::OperationsEnd => "`operations end`",
            Self::Untouched => "`what cannot be read is left as it is`",
            Self::Bounded => "`a flood has a bound`",
        })
    }
}

/// Runs one seed.
pub fn run(seed: u64) -> Result<Report, Failure> {
    history(seed, None)
}

/// Runs one seed with a core that was broken on purpose, to show that an oracle catches it.
pub fn run_broken(seed: u64, sabotage: Sabotage) -> Result<Report, Failure> {
    history(seed, Some(sabotage))
}

/// A failure is run once more, this time noting what happens: a seed is always the same history.
fn history(seed: u64, sabotage: Option<Sabotage>) -> Result<Report, Failure> {
    let run = |tells| sim::Sim::new(seed, sabotage, tells).run();
    run(false).or_else(|_| run(true))
}
