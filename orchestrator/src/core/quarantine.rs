//! Objects in the store that cannot be read (another version of Gantry wrote them, or their bytes are damaged), or whose handling
//! ended in a panic. Each, and what it owns, is left as it is; everything else goes on.
//!
//! The working copy does not have them. So nobody may take one for missing: what would be made in its place is not made
//! ([`super::world::Work::create`]), what it owns has an owner ([`super::gc`]), its pod keeps its place and its
//! configuration ([`keep`]), its addresses stay taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use gantry_api::ObjectMeta;
use gantry_nodeagent_api::{NodeConfig, PodConfig, ServiceConfig};
use gantry_plan::Placement;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::action::EventNote;
use super::world::{Key, Work};
use super::{claims, meta};

/// Name of the ConfigMap in `kube-system` that lists them, as `<Kind>.<namespace>.<name>`: why. It is there while there are any.
pub const LIST: &str = "gantry-unreadable";
/// Reasons of the Event on each.
const UNREADABLE: &str = "Unreadable";
const FAILED: &str = "HandlingFailed";
/// So many are listed one by one.
const LISTED: usize = 100;
/// Longest text of why, in characters.
const WHY_CHARS: usize = 300;

/// All objects that cannot be read, by kind and key.
pub type Quarantine = BTreeMap<(&'static str, Key), Unreadable>;

/// What can still be made out of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unreadable {
    /// One word in CamelCase.
    pub reason: &'static str,
    /// Why it is set apart.
    pub why: String,
    /// Its uid; empty if not even that can be read.
    pub uid: String,
    /// The uid of its controller.
    pub owner: Option<String>,
    /// Addresses and networks that it has.
    pub addresses: Vec<String>,
}

impl Unreadable {
    /// From what is left of an object that cannot be read.
    pub fn of(value: &Value, why: String) -> Self {
        Self::new(UNREADABLE, value, format!("cannot be read: {why}"))
    }

    /// From an object whose handling ended in a panic.
    pub fn failed(value: &Value, why: String) -> Self {
        Self::new(
            FAILED,
            value,
            format!("handling it failed, which is a defect of Gantry: {why}"),
        )
    }

    fn new(reason: &'static str, value: &Value, why: String) -> Self {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let owners = value
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array);
        let controller = owners.into_iter().flatten().find(|o| o["controller"] == true);
        let addresses = ["/spec/clusterIP", "/status/podIP", "/spec/podCIDR"];
        Self {
            reason,
            why: why.chars().take(WHY_CHARS).collect(),
            uid: text("/metadata/uid").unwrap_or_default().to_owned(),
            owner: controller.and_then(|o| o["uid"].as_str()).map(str::to_owned),
            addresses: addresses
                .iter()
                .filter_map(|p| text(p))
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// Whether a list of what functions of a namespace have would be short of something.
pub fn is_around(work: &Work<'_>, namespace: &str) -> bool {
    work.quarantine.keys().any(|(kind, key)| match *kind {
        "NfPackage" => true,
        "Pod" | "NetworkFunction" | "Service" => key.namespace == namespace,
        _ => false,
    })
}

/// Whether an object is there and cannot be read.
pub fn has(work: &Work<'_>, kind: &'static str, key: &Key) -> bool {
    !work.quarantine.is_empty() && work.quarantine.contains_key(&(kind, key.clone()))
}

/// How many objects of a kind that cannot be read an owner has.
pub fn owned(work: &Work<'_>, kind: &str, owner: &ObjectMeta) -> usize {
    let uid = meta::uid(owner);
    let near = |key: &Key| key.namespace == meta::namespace(owner);
    let all = work
        .quarantine
        .iter()
        .filter(|((k, key), _)| *k == kind && near(key));
    all.filter(|(_, q)| q.owner.as_deref() == Some(uid)).count()
}

/// Whether the owner that a reference names is one of them.
pub fn is_owner(work: &Work<'_>, owned: &ObjectMeta) -> bool {
    if work.quarantine.is_empty() {
        return false;
    }
    let owners = owned.owner_references.iter().flatten();
    let mut controllers = owners.filter(|o| o.controller == Some(true));
    controllers.any(|owner| {
        work.quarantine.keys().any(|(kind, key)| {
            let same_place = key.namespace.is_empty() || key.namespace == meta::namespace(owned);
            *kind == owner.kind && key.name == owner.name && same_place
        })
    })
}

/// Addresses that those that cannot be read have.
pub fn addresses(work: &Work<'_>) -> impl Iterator<Item = Ipv4Addr> {
    let all = work.quarantine.values().flat_map(|q| &q.addresses);
    all.filter_map(|text| text.parse().ok())
}

/// Whether a placement is of a pod that cannot be read.
pub fn is_pod_of(quarantine: &Quarantine, placement: &Placement) -> bool {
    let key = || Key::new(&placement.namespace, &placement.name);
    !quarantine.is_empty() && quarantine.contains_key(&("Pod", key()))
}

/// What a node was last told of those that cannot be read stays in what it is told: pods, backends, services, names.
pub fn keep(work: &Work<'_>, node: &str, content: &mut NodeConfig) {
    let Some(last) = work.sent.get(node).filter(|_| !work.quarantine.is_empty()) else {
        return;
    };
    claims::keep(work, last, content);
    let pods = last.pods.iter().filter(|(_, pod)| is_pod(work, pod));
    content
        .pods
        .extend(pods.map(|(uid, pod)| (uid.clone(), pod.clone())));
    let everywhere = || {
        work.sent
            .values()
            .flat_map(|c| &c.pods)
            .filter(|(_, pod)| is_pod(work, pod))
    };
    let held: BTreeSet<&str> = everywhere().map(|(uid, _)| uid.as_str()).collect();
    let mut addresses: BTreeSet<IpAddr> = everywhere()
        .filter_map(|(_, p)| p.address)
        .map(IpAddr::from)
        .collect();
    for (name, service) in &last.services {
        let key = name
            .split_once('/')
            .map(|(namespace, name)| Key::new(namespace, name));
        if key.is_some_and(|key| has(work, "Service", &key)) {
            content.services.insert(name.clone(), service.clone());
            addresses.insert(service.vip.into());
        } else if let Some(now) = content.services.get_mut(name) {
            keep_backends(service, now, &held);
        }
    }
    keep_names(last, content, &addresses);
}

/// Names that lead to these addresses go on leading there.
fn keep_names(last: &NodeConfig, content: &mut NodeConfig, addresses: &BTreeSet<IpAddr>) {
    let leads = |name: &str| {
        let told = last.dns.get(name).into_iter().flatten();
        told.filter(|a| addresses.contains(a))
            .copied()
            .collect::<Vec<_>>()
    };
    for name in last.dns.keys() {
        for address in leads(name) {
            let now = content.dns.entry(name.clone()).or_default();
            if !now.contains(&address) {
                now.push(address);
            }
        }
    }
    for (name, targets) in &last.srv {
        for target in targets.iter().filter(|t| !leads(&t.name).is_empty()) {
            let now = content.srv.entry(name.clone()).or_default();
            if !now.contains(target) {
                now.push(target.clone());
            }
        }
    }
}

fn is_pod(work: &Work<'_>, pod: &PodConfig) -> bool {
    has(work, "Pod", &Key::new(&pod.namespace, &pod.name))
}

fn keep_backends(last: &ServiceConfig, now: &mut ServiceConfig, held: &BTreeSet<&str>) {
    for port in &mut now.ports {
        let before = last
            .ports
            .iter()
            .filter(|p| p.port == port.port && p.protocol == port.protocol);
        let held = before
            .flat_map(|p| &p.backends)
            .filter(|b| held.contains(b.pod.as_str()));
        port.backends.extend(held.cloned());
    }
}

/// The endpoints of pods that cannot be read stay in their slices; `before` is as the slice was.
pub fn keep_endpoints(work: &mut Work<'_>, before: &BTreeMap<Key, std::sync::Arc<EndpointSlice>>) {
    if work.quarantine.is_empty() {
        return;
    }
    for key in work.keys::<EndpointSlice>() {
        let old = before.get(&key).and_then(|s| s.endpoints.as_ref());
        let held = old.into_iter().flatten().filter(|e| {
            let target = e.target_ref.as_ref();
            let name = target.and_then(|t| t.name.as_deref()).unwrap_or_default();
            has(work, "Pod", &Key::new(&key.namespace, name))
        });
        let held: Vec<_> = held.cloned().collect();
        if !held.is_empty()
            && let Some(slice) = work.edit::<EndpointSlice>(&key)
        {
            slice.endpoints.get_or_insert_default().extend(held);
        }
    }
}

/// Lists them where people see it, and tells of each that is new.
pub fn report(work: &mut Work<'_>) {
    let key = Key::new("kube-system", LIST);
    let known = work.get::<ConfigMap>(&key);
    let said = known.as_ref().and_then(|m| m.data.clone()).unwrap_or_default();
    let mut data = BTreeMap::new();
    for ((kind, key), unreadable) in work.quarantine.iter().take(LISTED) {
        let parts = [*kind, &key.namespace, &key.name].map(str::to_owned);
        let entry = parts
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join(".");
        if !said.contains_key(&entry) {
            work.events.push(told(kind, key, unreadable));
        }
        data.insert(entry, unreadable.why.clone());
    }
    match (known, data.is_empty()) {
        (Some(_), true) => work.remove::<ConfigMap>(&key),
        (None, true) => {}
        (None, false) => {
            let metadata = ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                ..Default::default()
            };
            work.create(ConfigMap {
                metadata,
                data: Some(data),
                ..Default::default()
            });
        }
        (Some(known), false) if known.data.as_ref() == Some(&data) => {}
        (Some(_), false) => {
            if let Some(map) = work.edit::<ConfigMap>(&key) {
                map.data = Some(data);
            }
        }
    }
}

fn told(kind: &'static str, key: &Key, unreadable: &Unreadable) -> EventNote {
    let way_out = "it and what it owns are left as they are: delete it, write it anew, or start the version of Gantry that wrote it";
    EventNote {
        kind,
        key: key.clone(),
        uid: unreadable.uid.clone(),
        warning: true,
        reason: unreadable.reason.to_owned(),
        message: format!("{}; {way_out}", unreadable.why),
    }
}
