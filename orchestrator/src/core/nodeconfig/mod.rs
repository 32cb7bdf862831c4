//! Per node, everything it has to be: the plan, the pods, the services, the names. A generation rises only with the content.

mod admission;
mod data;
mod env;
mod expand;
mod field;
mod files;
mod names;
mod one;
mod pod;
mod podnames;
mod probe;
mod room;
mod security;
mod service;
#[cfg(test)]
mod tests;
mod volume;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_nodeagent_api::{
    ClaimConfig, ClaimId, Generation, NodeConfig, NodeNetwork, PodConfig, PodDesired, ServiceConfig,
};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::world::Work;
use super::{claims, meta, nodes, pods, quarantine};
use room::{Allowance, Room};

/// A configuration that an agent has not accepted is sent again after this long.
pub const RESEND_AFTER_MS: u64 = 2_000;

/// Writes the configuration of every node that has spoken at least once.
pub fn run(work: &mut Work<'_>) {
    let (services, troubles) = admission::admit(work, service::configs(work), admission::LIMITS);
    let services: BTreeMap<String, ServiceConfig> = services
        .into_iter()
        .map(|(key, config)| (key.to_string(), config))
        .collect();
    let names = names::names(work);
    for key in work.keys::<Node>() {
        let Some(node) = work.get::<Node>(&key) else {
            continue;
        };
        let Some(network) = network(work, &node) else {
            continue;
        };
        let Some(shared_cpus) = work.plan.shared_pools.get(&key.name).cloned() else {
            continue;
        };
        let last = work.sent.get(&key.name).map(AsRef::as_ref);
        let mut claims = claims::on_node(work, &key.name);
        let told = last.into_iter().flat_map(|config| config.pods.values());
        let known = claims::of_pods(last, told)
            .into_iter()
            .chain(claims.clone())
            .collect();
        let pods = pods_on(
            work,
            &key.name,
            &Place {
                network: network.clone(),
                claims: known,
            },
        );
        let in_use = pods.values().filter(|pod| pod.desired == PodDesired::Run);
        for (id, claim) in claims::of_pods(last, in_use) {
            claims.entry(id).or_insert(claim);
        }
        work.at.object("Node", &key);
        let mut content = NodeConfig {
            generation: Generation(0),
            pods,
            network: Some(network),
            shared_cpus,
            services: services.clone(),
            cluster: work.settings.cluster.clone(),
            dns: names.addresses.clone(),
            srv: names.srv.clone(),
            claims: Some(claims),
        };
        quarantine::keep(work, &key.name, &mut content);
        advance(work, &key.name, content);
    }
    admission::tell(work, troubles);
}

fn network(work: &Work<'_>, node: &Node) -> Option<NodeNetwork> {
    let pod_cidr = nodes::cidr(node)?;
    Some(NodeNetwork {
        pod_cidr,
        service_cidr: work.settings.service_cidr,
        gateway: pod_cidr.hosts().next()?,
        cluster_domain: work.settings.cluster_domain.clone(),
    })
}

/// What of a node its pods depend on.
struct Place {
    network: NodeNetwork,
    /// Claims that are there, or were when it was last told.
    claims: BTreeMap<ClaimId, ClaimConfig>,
}

fn pods_on(work: &mut Work<'_>, node: &str, place: &Place) -> BTreeMap<String, PodConfig> {
    let mut configs = BTreeMap::new();
    let (mut entering, mut updated) = (Vec::new(), Vec::new());
    let nothing = BTreeMap::new();
    let last = work.sent.get(node).map_or(&nothing, |config| &config.pods);
    let mut room = Room::new(*work.limits, last.values());
    for (key, pod) in work
        .objects
        .pods
        .iter()
        .filter(|(_, p)| pods::node(p) == Some(node))
    {
        work.at.object("Pod", key);
        let uid = meta::uid(&pod.metadata);
        match last.get(uid) {
            Some(running) => {
                let (config, problem) = update(work, place, &mut room, pod, running);
                updated.push((key.clone(), problem));
                configs.insert(uid.to_owned(), config);
            }
            None if pods::is_stopping(pod) || pods::is_over(pod) => {}
            None => entering.push((key, pod)),
        }
    }
    // The newest come last: where the room ends, they wait.
    entering.sort_by_cached_key(|(key, pod)| (pods::created_at_ms(pod), *key));
    let (mut started, mut warned) = (Vec::new(), Vec::new());
    for (key, pod) in entering {
        work.at.object("Pod", key);
        let uid = meta::uid(&pod.metadata);
        // A pod enters the configuration when everything that it refers to is there.
        let mut warnings = Vec::new();
        let first = waiting::turn(work, pod).and_then(|()| {
            let config = pod::config(work, pod, &mut warnings)?;
            let config = takes(place, uid, config)?;
            room.enter(&config)?;
            Ok(config)
        });
        let held = match first {
            Ok(config) => {
                warned.extend(warnings.into_iter().map(|warning| (pod.clone(), warning)));
                configs.insert(uid.to_owned(), config);
                None
            }
            Err(held) => Some(held),
        };
        started.push((key.clone(), held));
    }
    for (key, held) in started {
        waiting::explain(work, &key, held.as_ref());
    }
    for (key, problem) in updated {
        waiting::explain_files(work, &key, problem.as_deref());
    }
    for (pod, (reason, text)) in warned {
        work.tell(&*pod, true, reason, &text);
    }
    configs
}

/// A pod that its node has; files that the node would not take stay as they were, and why is returned too.
fn update(
    work: &Work<'_>,
    place: &Place,
    room: &mut Room,
    pod: &Pod,
    running: &PodConfig,
) -> (PodConfig, Option<String>) {
    let mut allowance = Allowance::new(work.limits);
    let mut config = pod::update(work, pod, running, &mut allowance);
    if config.volumes == running.volumes {
        return (config, allowance.problem());
    }
    let taken = takes(place, meta::uid(&pod.metadata), config.clone())
        .and_then(|config| room.change(running, &config));
    let problem = taken.err();
    if problem.is_some() {
        config.volumes.clone_from(&running.volumes);
    }
    (config, problem)
}

/// The pod, if its node takes it. A node leaves out one that makes no sense; what is known here is told here.
fn takes(place: &Place, uid: &str, config: PodConfig) -> Result<PodConfig, String> {
    let own = config.claims().filter_map(|id| place.claims.get_key_value(id));
    let claims = own.map(|(id, claim)| (id.clone(), claim.clone())).collect();
    let mut alone = NodeConfig {
        network: Some(place.network.clone()),
        claims: Some(claims),
        pods: BTreeMap::from([(uid.to_owned(), config)]),
        ..NodeConfig::default()
    };
    if let Some(fault) = alone.faults(|_| false).remove(uid) {
        return Err(fault);
    }
    alone.pods.remove(uid).ok_or_else(|| "it is not there".to_owned())
}

fn advance(work: &mut Work<'_>, node: &str, mut content: NodeConfig) {
    let known = work.agents.get(node).map(|a| a.accepted()).unwrap_or_default();
    let last = work.sent.get(node).map(|c| c.generation).unwrap_or_default();
    content.generation = last;
    // An agent that is ahead of the store, or has other content under this number (the store was restored), follows only
    // a generation that is newer still.
    let refused = known == last && work.agents.get(node).is_some_and(|a| a.refused == Some(last));
    let same = work.sent.get(node).is_some_and(|old| **old == content) && known <= last && !refused;
    if !same {
        content.generation = Generation(last.max(known).0 + 1);
        work.configs.insert(node.to_owned(), Arc::new(content));
    }
}

/// The configurations to write and send: new ones, and those that a connected agent has not accepted.
pub fn to_send(work: &Work<'_>) -> Vec<(String, Arc<NodeConfig>)> {
    let due = |node: &str, config: &NodeConfig| {
        // Only a number: what the node was told could not be read. Nobody is told that it is nothing.
        if config.network.is_none() {
            return false;
        }
        if work
            .sent
            .get(node)
            .is_none_or(|old| old.generation != config.generation)
        {
            return true;
        }
        let Some(agent) = work
            .agents
            .get(node)
            .filter(|a| a.connected && a.accepted() < config.generation)
        else {
            return false;
        };
        agent.sent.is_none_or(|(generation, at_ms)| {
            generation < config.generation || work.now_ms.saturating_sub(at_ms) >= RESEND_AFTER_MS
        })
    };
    let all = work.configs.iter().filter(|(node, config)| due(node, config));
    all.map(|(node, config)| (node.clone(), config.clone())).collect()
}
