//! Ways to break a core on purpose. They live here, between the cores and the fake world, never in production code.

use std::sync::Arc;

use gantry_api::{DrainPhase, DrainState, OperationPhase, labels};
use gantry_nodeagent::core::PodOp;
use gantry_orchestrator::core::{Action, Object};
use gantry_plan::Violation;
use gantry_topology::Topology;

use crate::control::Store;

/// A core that is broken in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The agent lets containers of the shared pool run on every CPU.
    SharedPoolEverywhere,
    /// New content goes out under the old generation.
    GenerationStands,
    /// The plan gives out a CPU that the node does not have.
    PlanInventsCpu,
    /// The plan names another parent than the one it replaces.
    PlanForgetsParent,
    /// A drain does not wait for sessions.
    DrainDoesNotWait,
    /// After a while no configuration reaches an agent any more.
    ConfigsAreLost,
    /// Operations never end.
    OperationsGoOn,
    /// Operations end as asked as soon as anything happens.
    OperationsEndEarly,
    /// Receipts say that nothing was lost.
    ReceiptsForget,
    /// The planner's answers break its own rules.
    PlansAreRefused,
    /// An object that cannot be read is taken for missing.
    ForgetsUnreadable,
    /// An owner gets more pods than may wait.
    FloodsPass,
}

impl Sabotage {
    /// Breaks what the orchestrator's core decided.
    pub(crate) fn decisions(self, actions: &mut [Action], store: &Store) {
        for action in actions {
            match (self, action) {
                (Self::GenerationStands, Action::SendConfig { node, config }) => {
                    if let Some(old) = store.configs.get(node) {
                        Arc::make_mut(config).generation = old.generation;
                    }
                }
                (Self::PlanInventsCpu, Action::CommitPlan { plan, .. }) => {
                    let containers = plan.placements.values_mut().flat_map(|p| &mut p.containers);
                    containers.take(1).for_each(|c| c.cpus.insert(999));
                }
                (Self::PlansAreRefused, action @ Action::CommitPlan { .. }) => {
                    let pod = "any".to_owned();
                    *action = Action::RefusePlan(vec![Violation::Lost { pod }]);
                }
                (Self::PlanForgetsParent, Action::CommitPlan { plan, .. }) => plan.parent += 7,
                (Self::DrainDoesNotWait, Action::Update(Object::Pod(pod))) => hurry(Arc::make_mut(pod)),
                (
                    Self::OperationsGoOn,
                    Action::Update(Object::Operation(o)) | Action::UpdateStatus(Object::Operation(o)),
                ) => {
                    Arc::make_mut(o).status.phase = OperationPhase::Running;
                }
                (
                    Self::OperationsEndEarly,
                    Action::Update(Object::Operation(o)) | Action::UpdateStatus(Object::Operation(o)),
                ) => {
                    Arc::make_mut(o).status.phase = OperationPhase::Succeeded;
                }
                (
                    Self::ReceiptsForget,
                    Action::Update(Object::Operation(o)) | Action::UpdateStatus(Object::Operation(o)),
                ) => {
                    let pods = Arc::make_mut(o).status.pods.values_mut();
                    pods.for_each(|p| p.sessions_lost = p.sessions_lost.and(Some(0)));
                }
                _ => {}
            }
        }
    }

    /// Whether a configuration is swallowed on its way.
    pub(crate) fn swallows_config(self, now_ms: u64) -> bool {
        self == Self::ConfigsAreLost && now_ms > 20_000
    }

    /// Breaks what an agent's core asked.
    pub(crate) fn operation(self, op: &mut PodOp, topology: &Topology) {
        if let (Self::SharedPoolEverywhere, PodOp::Apply { bounds, .. } | PodOp::Start { bounds, .. }) =
            (self, op)
            && bounds.limits.resources.cpus.is_empty()
        {
            bounds.limits.shared_cpus = topology.all_cpus();
        }
    }
}

fn hurry(pod: &mut k8s_openapi::api::core::v1::Pod) {
    let Some(annotations) = pod.metadata.annotations.as_mut() else {
        return;
    };
    if let Some(text) = annotations.get_mut(labels::DRAIN) {
        let state: DrainState = serde_json::from_str(text).unwrap_or_default();
        let hurried = DrainState {
            phase: DrainPhase::Stopping,
            ..state
        };
        *text = serde_json::to_string(&hurried).expect("plain data");
    }
}
