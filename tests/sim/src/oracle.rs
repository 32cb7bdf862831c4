//! What must hold.

mod operations;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::OperationPhase;
use gantry_nodeagent_api::{Generation, NodeConfig, PodDesired};
use gantry_orchestrator::core::{Action, Agents, meta, snapshot};
use gantry_plan::Plan;

use crate::Oracle;
use crate::control::{FLOOD_PODS, Store};
use crate::node::Node;
use crate::users::FLOOD;

/// What an oracle saw.
pub(crate) type Verdict = Result<(), (Oracle, String)>;

/// What the oracles remember.
#[derive(Default)]
pub(crate) struct Memory {
    configs: BTreeMap<String, Arc<NodeConfig>>,
    ledgers: BTreeMap<String, Generation>,
    operations: operations::Seen,
}

impl Memory {
    /// A pass was written: its plan is valid and replaces its parent, its configurations are newer.
    pub fn pass(&mut self, actions: &[Action], agents: &Agents, before: &Plan, store: &Store) -> Verdict {
        for action in actions {
            match action {
                Action::CommitPlan { plan, .. } => {
                    if plan.parent != before.id || plan.id <= before.id {
                        let what = format!(
                            "plan {} has parent {}, and replaces {}",
                            plan.id, plan.parent, before.id
                        );
                        return Err((Oracle::PlanLineage, what));
                    }
                    let seen = snapshot(&store.objects, &store.quarantine(), agents, before);
                    let violations = gantry_plan::check(&seen, before, plan);
                    if let Some(first) = violations.first() {
                        return Err((Oracle::PlanIsValid, format!("plan {}: {first}", plan.id)));
                    }
                }
                Action::RefusePlan(violations) => {
                    return Err((Oracle::PlanIsValid, format!("a plan was refused: {violations:?}")));
                }
                Action::SendConfig { node, config } => self.config(node, config)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn config(&mut self, node: &str, config: &Arc<NodeConfig>) -> Verdict {
        if let Some(last) = self.configs.get(node) {
            let (old, new) = (last.generation.0, config.generation.0);
            if new < old || (new == old && last != config) {
                return Err((
                    Oracle::Generations,
                    format!("{node} gets generation {new} with other content after {old}"),
                ));
            }
        }
        self.configs.insert(node.to_owned(), config.clone());
        Ok(())
    }

    /// Operations that ended in a pass that was written.
    pub fn operations(&mut self, actions: &[Action], store: &Store, nodes: &[Node]) -> Verdict {
        self.operations.pass(actions, store, nodes)
    }

    /// A pod that does not serve any more had a session.
    pub fn lost(&mut self, store: &Store, pod: &str) {
        self.operations.lost(store, pod);
    }

    /// Hosts as they are now.
    pub fn hosts(&mut self, nodes: &[Node]) -> Verdict {
        for node in nodes {
            let uses: Vec<_> = node.host.cpu_use().collect();
            for (i, (uid, container, exclusive, cpus)) in uses.iter().enumerate() {
                for (other_uid, other, other_exclusive, others) in &uses[i + 1..] {
                    if (*exclusive || *other_exclusive) && !cpus.is_disjoint(others) {
                        let shared = cpus.intersection(others);
                        let what = format!(
                            "{}: CPUs {shared} are used by {uid}/{container} and {other_uid}/{other}",
                            node.name
                        );
                        return Err((Oracle::OneOwner, what));
                    }
                }
            }
            let ledger = self.ledgers.entry(node.name.clone()).or_default();
            if node.disk.config.generation < *ledger {
                let what = format!(
                    "{}: the ledger went back from {} to {}",
                    node.name, ledger.0, node.disk.config.generation.0
                );
                return Err((Oracle::Generations, what));
            }
            *ledger = node.disk.config.generation;
        }
        Ok(())
    }
}

/// Of the flood no more pods exist than may wait.
pub(crate) fn bounded(store: &Store) -> Verdict {
    let pods = store
        .objects
        .pods
        .keys()
        .filter(|key| key.namespace == FLOOD)
        .count();
    if pods <= FLOOD_PODS {
        return Ok(());
    }
    let what = format!("the flood has {pods} pods, and {FLOOD_PODS} may wait");
    Err((Oracle::Bounded, what))
}

/// Everything is as asked and nothing is left over; in words what is not.
pub(crate) fn at_rest(store: &Store, nodes: &[Node], agents: &Agents) -> Verdict {
    let wrong = |what: String| Err((Oracle::Converges, what));
    for (key, function) in &store.objects.functions {
        let status = &function.status;
        let asked =
            status.ready_replicas == function.spec.replicas && status.replicas == function.spec.replicas;
        if !asked || status.draining_replicas > 0 || !status.message.is_empty() {
            return wrong(format!(
                "{key} wants {} and has {} of which {} ready, {} leaving: {}",
                function.spec.replicas,
                status.replicas,
                status.ready_replicas,
                status.draining_replicas,
                status.message
            ));
        }
        if function.metadata.deletion_timestamp.is_some()
            || function.metadata.generation != Some(status.observed_generation)
        {
            return wrong(format!("{key} is not gone, or not looked at"));
        }
    }
    let others = || {
        store
            .objects
            .pods
            .values()
            .filter(|p| meta::namespace(&p.metadata) != FLOOD)
    };
    for pod in others() {
        if !store.plan.placements.contains_key(meta::uid(&pod.metadata)) {
            return wrong(format!("pod {} has no place", meta::name(&pod.metadata)));
        }
    }
    if store.plan.placements.len() != others().count() {
        return wrong("the plan has a place for a pod that is gone".to_owned());
    }
    for node in nodes {
        node_at_rest(store, node, agents)?;
    }
    for (key, operation) in &store.objects.operations {
        if operation.status.phase == OperationPhase::Running {
            return Err((
                Oracle::OperationsEnd,
                format!(
                    "operation {key} ({}) goes on: {}",
                    operation.spec.asked, operation.status.message
                ),
            ));
        }
    }
    Ok(())
}

fn node_at_rest(store: &Store, node: &Node, agents: &Agents) -> Verdict {
    let wrong = |what: String| Err((Oracle::Converges, format!("{}: {what}", node.name)));
    let connected = agents.get(&node.name).is_some_and(|a| a.connected);
    if node.agent.is_none() || !connected {
        return wrong("the agent is away".to_owned());
    }
    let Some(config) = store.configs.get(&node.name) else {
        return wrong("it has no configuration".to_owned());
    };
    if node.disk.config != **config {
        return wrong(format!(
            "the agent has generation {}, not {}",
            node.disk.config.generation.0, config.generation.0
        ));
    }
    if !node
        .agent
        .as_ref()
        .is_some_and(gantry_nodeagent::core::State::settled)
    {
        return wrong("the agent has work left".to_owned());
    }
    let running = config
        .pods
        .iter()
        .filter(|(_, p)| p.desired == PodDesired::Run)
        .map(|(uid, _)| uid);
    if !running.eq(node.host.pods.keys()) {
        return wrong("the host does not run exactly what is configured".to_owned());
    }
    match node.host.pods.keys().find(|uid| !node.host.serves(uid)) {
        Some(uid) => wrong(format!("pod {uid} does not run")),
        None => Ok(()),
    }
}
