//! The agent's core: decides everything, touches nothing. No I/O, no clock, no randomness.
//!
//! [`step`] takes an event and answers with actions. It is level-based: the event changes facts, then the whole state is looked
//! at again and whatever is missing and not under way is asked for. What must survive a crash is the [`Ledger`].

mod accept;
mod action;
mod adopt;
mod backoff;
mod claims;
mod cpus;
mod end;
mod event;
mod facts;
mod hooks;
mod ledger;
mod network;
mod pods;
mod probes;
mod promise;
mod reload;
mod sessions;
mod state;
mod status;
mod stop;
mod storage;
#[cfg(test)]
mod tests;
mod troubles;

pub use action::{
    Action, Behind, Bounds, FailureKind, Limits, NetworkWanted, PodDone, PodFailure, PodOp, RequestId,
};
pub use event::{
    DiskSpace, Event, Exit, NetworkFaults, Observed, ObservedContainer, ObservedPod, PodRef, PodUsage, Run,
};
pub use ledger::Ledger;
pub use state::State;
pub use storage::MAX_ENTRIES;

/// Tells the core what happened at `now_ms` (milliseconds since the Unix epoch; never runs backwards) and returns what to do, in order.
pub fn step(state: &mut State, now_ms: u64, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    state.wake_ms = None;
    facts::note(state, now_ms, event, &mut actions);
    if state.started {
        accept::run(state, now_ms, &mut actions);
        network::run(state, now_ms, &mut actions);
        claims::run(state, now_ms, &mut actions);
        storage::run(state, now_ms, &mut actions);
        cpus::run(state, now_ms, &mut actions);
        pods::run(state, now_ms, &mut actions);
        hooks::run(state, now_ms, &mut actions);
        reload::run(state, now_ms, &mut actions);
        probes::run(state, now_ms, &mut actions);
        sessions::run(state, now_ms, &mut actions);
        troubles::run(state, now_ms);
        accept::save(state, now_ms, &mut actions);
        promise::run(state);
        status::run(state, now_ms, &mut actions);
    }
    actions
}
