//! Whether a node is ready: what its condition says, and since when.

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};

use super::super::agents::Agent;
use super::super::meta;
use super::super::world::{Key, Work};

/// A node without a stream for this long is `Ready=Unknown` (Kubernetes' node-monitor-grace-period).
pub const LOST_AFTER_MS: u64 = 40_000;

/// A node that no agent has spoken for since the orchestrator started: but for that, what was last known of it stays.
pub(super) fn silent(work: &mut Work<'_>, key: &Key, agent: &Agent) {
    let now_ms = work.now_ms;
    let Some(status) = work.edit::<Node>(key).and_then(|node| node.status.as_mut()) else {
        return;
    };
    let ready = condition(status, "Ready", readiness(status, agent, now_ms), now_ms);
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "Ready");
    conditions.insert(0, ready);
}

/// Whether a node is ready: status, reason and message of its condition. What it was stays while the agent may come back.
pub(super) fn readiness<'a>(
    before: &NodeStatus,
    agent: &'a Agent,
    now_ms: u64,
) -> (&'static str, &'static str, &'a str) {
    let trouble = agent.status.as_ref().map_or("", |s| &s.network_message);
    if agent.connected && !trouble.is_empty() {
        ("False", "NetworkUnavailable", trouble)
    } else if let Some(refusal) = agent.refusal().filter(|_| agent.connected) {
        ("False", "ConfigurationRefused", refusal)
    } else if agent.connected {
        ("True", "AgentReady", "the node agent is connected")
    } else if now_ms.saturating_sub(agent.since_ms) > LOST_AFTER_MS {
        let message = "the node agent has lost its connection; pods and their traffic go on";
        ("Unknown", "AgentLost", message)
    } else {
        let mut known = before.conditions.iter().flatten();
        let was_ready = known.any(|c| c.type_ == "Ready" && c.status == "True");
        let status = if was_ready { "True" } else { "Unknown" };
        (status, "AgentReconnecting", "the node agent is reconnecting")
    }
}

/// A condition with status, reason and message; its time moves only when its status does.
pub(super) fn condition(
    before: &NodeStatus,
    name: &str,
    now: (&str, &str, &str),
    now_ms: u64,
) -> NodeCondition {
    let (status, reason, message) = now;
    let mut known = before.conditions.iter().flatten();
    let old = known.find(|c| c.type_ == name && c.status == status);
    let since = old.and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or_else(|| meta::time(now_ms))),
        last_heartbeat_time: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lab::Lab;
    use super::*;

    #[test]
    fn a_node_that_nobody_has_spoken_for_since_the_start_is_not_called_ready_for_long() {
        let mut lab = Lab::new(&["a"]);
        lab.settle();
        let ready = |lab: &Lab| {
            let status = lab.world.objects.nodes[&Key::new("", "a")]
                .status
                .clone()
                .unwrap();
            let ready = status
                .conditions
                .unwrap()
                .into_iter()
                .find(|c| c.type_ == "Ready");
            let ready = ready.unwrap();
            (ready.status, ready.reason.unwrap())
        };
        let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(ready(&lab), is("True", "AgentReady"));
        lab.world.agents = Default::default();
        lab.world.agents.expect("a", lab.now_ms);
        lab.settle();
        assert_eq!(ready(&lab), is("True", "AgentReconnecting"));
        lab.run_for(LOST_AFTER_MS + 1_000);
        assert_eq!(ready(&lab), is("Unknown", "AgentLost"));
        lab.connect("a");
        lab.settle();
        assert_eq!(ready(&lab), is("True", "AgentReady"));
    }
}
