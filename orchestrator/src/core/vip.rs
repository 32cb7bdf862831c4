//! Every Service without an address gets one out of the service range.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::meta;
use super::world::{Key, Work};

/// Gives addresses to Services that want one and have none.
pub fn run(work: &mut Work<'_>) {
    let mut taken: BTreeSet<Ipv4Addr> = work.objects.services.values().filter_map(|s| of(s)).collect();
    for key in work.keys::<Service>() {
        let Some(service) = work.get::<Service>(&key) else {
            continue;
        };
        if !service.spec.as_ref().is_some_and(wants_one) {
            continue;
        }
        let Some(free) = work.settings.service_cidr.hosts().find(|a| !taken.contains(a)) else {
            say(
                work,
                &service,
                Some("no service address is left: start with a larger service range"),
            );
            continue;
        };
        taken.insert(free);
        if let Some(spec) = work.edit::<Service>(&key).and_then(|s| s.spec.as_mut()) {
            spec.cluster_ip = Some(free.to_string());
            spec.cluster_ips = Some(vec![free.to_string()]);
        }
        say(work, &service, None);
    }
}

/// Why it has no address, as a condition; an event when that is new. What is told on every pass would itself cause the next one.
fn say(work: &mut Work<'_>, service: &Service, problem: Option<&str>) {
    const CONDITION: &str = "NoAddress";
    let key = Key::of(&service.metadata);
    let conditions = service.status.as_ref().and_then(|s| s.conditions.as_ref());
    let was_said = conditions.into_iter().flatten().any(|c| c.type_ == CONDITION);
    if was_said == problem.is_some() {
        return;
    }
    let now_ms = work.now_ms;
    let Some(edited) = work.edit::<Service>(&key) else {
        return;
    };
    let conditions = edited
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    conditions.retain(|c| c.type_ != CONDITION);
    if let Some(problem) = problem {
        conditions.push(Condition {
            type_: CONDITION.to_owned(),
            status: "True".to_owned(),
            reason: "RangeExhausted".to_owned(),
            message: problem.to_owned(),
            last_transition_time: meta::time(now_ms),
            observed_generation: None,
        });
        work.tell(service, true, CONDITION, problem);
    }
}

fn wants_one(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref().unwrap_or_default().is_empty() && spec.type_.as_deref() != Some("ExternalName")
}

/// A Service's virtual address.
pub fn of(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::lab::Lab;

    #[test]
    fn a_service_without_an_address_is_told_of_once() {
        let mut lab = Lab::new(&["a"]);
        lab.world.settings.service_cidr = "10.86.0.0/31".parse().unwrap();
        for name in ["a", "b", "c"] {
            lab.publish(name, "1.0.0", json!({}));
            lab.deploy(name, json!({}));
        }
        let told = lab.settle();
        let without = told.iter().filter(|t| *t == "c NoAddress");
        assert_eq!(without.count(), 1, "{told:?}");
    }
}
