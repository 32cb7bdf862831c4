//! Which Services the nodes are told of: each stands or falls alone. One that cannot be in force has a condition, and all
//! others are.

use std::collections::{BTreeMap, BTreeSet};

use gantry_nodeagent_api::{MAX_SERVICE_BACKENDS, MAX_SERVICE_PORTS, ServiceConfig, ServiceFaultReason};
use k8s_openapi::api::core::v1::Service;

use super::super::service_condition::{self, Trouble};
use super::super::world::{Key, Work};
use super::super::{group, meta};

/// Condition of a Service that is not, or not wholly, in force on the nodes.
const CONDITION: &str = "Programmed";

/// How much there is room for, over all groups.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub ports: usize,
    pub backends: usize,
}

/// What a node takes.
pub(super) const LIMITS: Limits = Limits {
    ports: MAX_SERVICE_PORTS,
    backends: MAX_SERVICE_BACKENDS,
};

type Configs = BTreeMap<Key, ServiceConfig>;
type Troubles = BTreeMap<Key, Trouble>;

/// Leaves out Services whose address another one has, and the newest ones when the tables or their group's share of
/// them are full. Those that the nodes have already come first, then the older ones.
pub(super) fn admit(work: &Work<'_>, configs: Configs, limits: Limits) -> (Configs, Troubles) {
    let in_force: BTreeSet<&String> = work.sent.values().flat_map(|c| c.services.keys()).collect();
    let age = |key: &Key| {
        let meta = work.objects.services.get(key).map(|s| &s.metadata);
        meta.and_then(|m| m.creation_timestamp.as_ref())
            .map_or(0, meta::millis)
    };
    let mut order: Vec<(Key, ServiceConfig)> = configs.into_iter().collect();
    order.sort_by_cached_key(|(key, _)| (!in_force.contains(&key.to_string()), age(key), key.clone()));
    let mut books = Books {
        limits,
        share: work.limits.group_share,
        owners: BTreeMap::new(),
        used: BTreeMap::new(),
        all: (0, 0),
    };
    let (mut admitted, mut troubles) = (BTreeMap::new(), BTreeMap::new());
    for (key, config) in order {
        let group = group::of(&work.objects, &key.namespace);
        match books.enter(&key, group, &config) {
            None => drop(admitted.insert(key, config)),
            Some(trouble) => drop(troubles.insert(key, trouble)),
        }
    }
    (admitted, troubles)
}

/// Who has what.
struct Books {
    limits: Limits,
    share: usize,
    owners: BTreeMap<std::net::Ipv4Addr, Key>,
    /// Ports and backends by group.
    used: BTreeMap<String, (usize, usize)>,
    /// Ports and backends of all.
    all: (usize, usize),
}

impl Books {
    /// Enters a Service, or says why there is no place for it.
    fn enter(&mut self, key: &Key, group: String, config: &ServiceConfig) -> Option<Trouble> {
        if let Some(owner) = self.owners.get(&config.vip) {
            return Some(Trouble {
                reason: "AddressConflict".to_owned(),
                message: format!(
                    "the address {} belongs to Service {owner}: delete this one and create it anew",
                    config.vip
                ),
            });
        }
        let backends = config.ports.iter().map(|p| p.backends.len()).sum::<usize>();
        let wanted = (config.ports.len(), backends);
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        let own = add(self.used.get(&group).copied().unwrap_or_default(), wanted);
        let all = add(self.all, wanted);
        let fits = |(ports, backends), part| {
            ports <= self.limits.ports / part && backends <= self.limits.backends / part
        };
        let message = if !fits(own, self.share) {
            format!(
                "{group} has no room left for it: {} service ports and {} backends are its share; delete Services there",
                self.limits.ports / self.share,
                self.limits.backends / self.share
            )
        } else if !fits(all, 1) {
            format!(
                "the nodes have no room left for it: {} service ports and {} backends are all; delete Services",
                self.limits.ports, self.limits.backends
            )
        } else {
            self.owners.insert(config.vip, key.clone());
            self.used.insert(group, own);
            self.all = all;
            return None;
        };
        let reason = ServiceFaultReason::TablesFull.as_str().to_owned();
        Some(Trouble { reason, message })
    }
}

/// Says on every Service whether something is in its way: what this side knows, or else what the first node reports.
pub(super) fn tell(work: &mut Work<'_>, mut troubles: Troubles) {
    let agents = work.agents;
    let reports: Vec<_> = agents
        .iter()
        .filter_map(|(node, a)| Some((node, a.status.as_ref()?)))
        .collect();
    for key in work.keys::<Service>() {
        let name = key.to_string();
        let reported = || {
            reports.iter().find_map(|(node, report)| {
                let fault = report.services.get(&name)?;
                Some(Trouble {
                    reason: fault.reason.as_str().to_owned(),
                    message: format!("node {node}: {}", fault.message),
                })
            })
        };
        let trouble = troubles.remove(&key).or_else(reported);
        // Before the first report nobody knows whether what was told before still holds.
        if trouble.is_some() || !reports.is_empty() {
            service_condition::set(work, &key, CONDITION, "False", trouble.as_ref());
        }
    }
}
