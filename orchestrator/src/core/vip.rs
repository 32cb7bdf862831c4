//! Every Service without an address gets one out of the service range, as long as its group of namespaces has not its share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::service_condition::{self, Trouble};
use super::world::Work;
use super::{group, quarantine};
use crate::kinds::service_share;

/// Gives addresses to Services that want one and have none.
pub fn run(work: &mut Work<'_>) {
    let mut taken: BTreeSet<Ipv4Addr> = work.objects.services.values().filter_map(|s| of(s)).collect();
    taken.extend(quarantine::addresses(work));
    if !work.quarantine.is_empty() {
        taken.extend(
            work.sent
                .values()
                .flat_map(|c| c.services.values().map(|s| s.vip)),
        );
    }
    let (range, share) = (
        work.settings.service_cidr,
        service_share(work.settings.service_cidr),
    );
    let mut had: BTreeMap<String, u64> = BTreeMap::new();
    for (key, _) in work.objects.services.iter().filter(|(_, s)| of(s).is_some()) {
        *had.entry(group::of(&work.objects, &key.namespace)).or_default() += 1;
    }
    for key in work.keys::<Service>() {
        let Some(service) = work.get::<Service>(&key) else {
            continue;
        };
        if !service.spec.as_ref().is_some_and(wants_one) {
            continue;
        }
        let group = group::of(&work.objects, &key.namespace);
        let had = had.entry(group.clone()).or_default();
        if *had >= share {
            let trouble = Trouble {
                reason: "ShareExhausted".to_owned(),
                message: format!(
                    "{group} has its share of the service addresses of {range}, which is {share}: delete Services there"
                ),
            };
            service_condition::set(work, &key, CONDITION, "True", Some(&trouble));
            continue;
        }
        let Some(free) = work.settings.service_cidr.hosts().find(|a| !taken.contains(a)) else {
            let trouble = Trouble {
                reason: "RangeExhausted".to_owned(),
                message: "no service address is left: start with a larger service range".to_owned(),
            };
            service_condition::set(work, &key, CONDITION, "True", Some(&trouble));
            continue;
        };
        taken.insert(free);
        *had += 1;
        if let Some(spec) = work.edit::<Service>(&key).and_then(|s| s.spec.as_mut()) {
            spec.cluster_ip = Some(free.to_string());
            spec.cluster_ips = Some(vec![free.to_string()]);
        }
        service_condition::set(work, &key, CONDITION, "True", None);
    }
}

const CONDITION: &str = "NoAddress";

fn wants_one(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref().unwrap_or_default().is_empty() && spec.type_.as_deref() != Some("ExternalName")
}

/// What stands in the place of an address in a Service that wants none.
pub const HEADLESS: &str = "None";

/// It has no virtual address, and wants none: its name leads to its pods.
pub fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some(HEADLESS))
}

/// A Service's virtual address.
pub fn of(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_api::labels;
    use serde_json::json;

    use super::super::lab::Lab;
    use super::super::world::Object;
    use super::of;

    #[test]
    fn one_namespace_never_takes_all_addresses() {
        let mut lab = Lab::new(&["a"]);
        lab.world.settings.service_cidr = "10.86.0.0/24".parse().unwrap();
        let service = |namespace: &str, name: String| {
            let metadata =
                json!({"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}")});
            let spec = json!({"selector": {"a": "b"}, "ports": [{"port": 80}]});
            let value = json!({"metadata": metadata, "spec": spec});
            Object::Service(Arc::new(serde_json::from_value(value).unwrap()))
        };
        // 64 are anybody's, however small the range is; one person's namespaces together have them once.
        for i in 0..66 {
            lab.world.objects.put(service("default", format!("s{i:02}")));
        }
        for name in ["eve-a", "eve-b"] {
            let annotations = json!({labels::REQUESTER: "eve"});
            let value = json!({"metadata": {"name": name, "annotations": annotations}});
            lab.world.objects.put(Object::Namespace(Arc::new(
                serde_json::from_value(value).unwrap(),
            )));
            for i in 0..40 {
                lab.world.objects.put(service(name, format!("e{i:02}")));
            }
        }
        lab.world.objects.put(service("other", "t".to_owned()));
        let told = lab.settle();
        let has = |namespace: &str| {
            let services = lab.world.objects.services.iter();
            let own = services.filter(|(key, _)| key.namespace == namespace);
            own.filter(|(_, s)| of(s).is_some()).count()
        };
        assert_eq!((has("default"), has("other")), (64, 1));
        assert_eq!((has("eve-a"), has("eve-b")), (40, 24));
        let of_default = |t: &&String| t.starts_with('s') && t.ends_with("ShareExhausted");
        let without: Vec<_> = told.iter().filter(of_default).collect();
        assert_eq!(without, ["s64 ShareExhausted", "s65 ShareExhausted"]);
    }

    #[test]
    fn a_service_without_an_address_is_told_of_once() {
        let mut lab = Lab::new(&["a"]);
        lab.world.settings.service_cidr = "10.86.0.0/31".parse().unwrap();
        for name in ["a", "b", "c"] {
            lab.publish(name, "1.0.0", json!({}));
            lab.deploy(name, json!({}));
        }
        let told = lab.settle();
        let without = told.iter().filter(|t| *t == "c RangeExhausted");
        assert_eq!(without.count(), 1, "{told:?}");
    }
}
