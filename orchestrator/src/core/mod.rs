//! The pure core: looks at the whole world, says what to do next. No I/O, no clock, no memory between passes.
//!
//! One pass copies the world (objects are shared until changed), lets one controller after the other change the copy, and
//! turns the difference into actions. A pass that finds everything as wanted returns nothing.

mod action;
mod agents;
#[cfg(test)]
mod apart;
mod at;
mod births;
mod bootstrap;
pub(crate) mod claims;
mod containerstatus;
mod crowd;
mod deployment;
mod deployment_condition;
mod diskpressure;
mod drain;
mod endpoints;
#[cfg(test)]
mod flood;
mod gc;
mod group;
#[cfg(test)]
mod lab;
mod leads;
mod limits;
pub mod meta;
mod networkservice;
mod nf;
mod nodeconfig;
mod nodes;
mod operation;
mod podevents;
pub mod pods;
mod podstatus;
mod quarantine;
mod replicaset;
mod resize;
mod resources;
mod revision;
#[cfg(test)]
mod rollouts;
pub(crate) mod schedule;
mod service_condition;
mod size;
mod snapshot;
mod vip;
mod world;

pub use action::{Action, EventNote};
pub use agents::{Agent, Agents};
pub use at::Probe;
pub use diskpressure::DISK_PRESSURE;
pub use drain::{Facts as DrainFacts, SETTLE_MS, step as drain_step};
pub use limits::Limits;
pub use nf::{FINALIZER, Rendered, Rendering, UNDEPLOY, Whose};
pub use nodeconfig::RESEND_AFTER_MS;
pub use nodes::LOST_AFTER_MS;
pub use quarantine::{LIST as UNREADABLE_LIST, Quarantine, Unreadable};
pub use snapshot::take as snapshot;
pub use world::{KINDS, Key, Kinded, Object, Objects, Settings, Table, World};

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::Work;

/// What has to be done to bring the world a step nearer to what is wanted. Deterministic.
///
/// The order of the actions is the order to carry them out in: first the plan (everything else follows from it), then the
/// objects, then the nodes' configurations, last what people are told.
pub fn reconcile(world: &World, now_ms: u64) -> Vec<Action> {
    let mut work = Work::new(world, now_ms);
    match catch_unwind(AssertUnwindSafe(|| decide(&mut work))) {
        Ok(()) => actions(world, work),
        Err(panic) => vec![Action::Failed {
            at: at::at_fault(world, &work),
            why: message(&*panic),
        }],
    }
}

/// What a panic says.
fn message(panic: &dyn std::any::Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it does not say why").to_owned()
}

fn actions(world: &World, work: Work<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    if work.plan != world.plan {
        actions.push(Action::CommitPlan {
            parent: world.plan.id,
            plan: work.plan.clone(),
        });
    }
    actions.extend(world.objects.diff(&work.objects));
    actions.extend(work.forgotten.iter().cloned().map(Action::ForgetNode));
    let configs = nodeconfig::to_send(&work);
    actions.extend(
        configs
            .into_iter()
            .map(|(node, config)| Action::SendConfig { node, config }),
    );
    actions.extend((!work.refused.is_empty()).then_some(Action::RefusePlan(work.refused)));
    actions.extend(work.renderings.into_iter().map(Box::new).map(Action::Render));
    actions.extend(work.events.into_iter().map(Action::EmitEvent));
    actions
}

/// The world as it would be after one pass, for a dry run: nothing is written.
pub fn preview(world: &World, now_ms: u64) -> Preview {
    let mut work = Work::new(world, now_ms);
    decide(&mut work);
    Preview {
        objects: work.objects,
        plan: work.plan,
        unplaced: work.unplaced,
        problems: work.problems,
        renderings: work.renderings,
    }
}

/// The outcome of a dry run.
pub struct Preview {
    /// The objects as they would be.
    pub objects: Objects,
    /// The plan that would be committed.
    pub plan: gantry_plan::Plan,
    /// Why pods would have no place, or stay at their old size, by uid.
    pub unplaced: std::collections::BTreeMap<String, gantry_plan::Explanation>,
    /// What stands in the way of NetworkFunctions.
    pub problems: std::collections::BTreeMap<Key, String>,
    /// Templates that would have to be rendered first.
    pub renderings: Vec<Rendering>,
}

fn decide(work: &mut Work<'_>) {
    let what_is = [bootstrap::run, nodes::run, podstatus::run];
    let what_shall_be = [
        networkservice::run,
        operation::begin,
        nf::run,
        deployment::run,
        replicaset::run,
        gc::run,
        vip::run,
        drain::run,
    ];
    let how = [schedule::run, claims::run, endpoints, nodeconfig::run];
    let how_far_it_is = [resize::run, nf::status, operation::follow, quarantine::report];
    let controllers: [&[fn(&mut Work<'_>)]; 4] = [&what_is, &what_shall_be, &how, &how_far_it_is];
    for controller in controllers.into_iter().flatten() {
        controller(work);
        // What it does beside its walks is nobody's.
        work.at.nothing();
    }
}

fn endpoints(work: &mut Work<'_>) {
    let slices = match work.quarantine.is_empty() {
        true => world::Table::new(),
        false => work.objects.endpoint_slices.clone(),
    };
    endpoints::run(work);
    quarantine::keep_endpoints(work, &slices);
}
