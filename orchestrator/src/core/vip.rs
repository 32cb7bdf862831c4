//! Every Service without an address gets one out of the service range.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::world::Work;

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
            work.tell(
                &*service,
                true,
                "NoAddress",
                "no service address is left: start with a larger service range",
            );
            continue;
        };
        taken.insert(free);
        if let Some(spec) = work.edit::<Service>(&key).and_then(|s| s.spec.as_mut()) {
            spec.cluster_ip = Some(free.to_string());
            spec.cluster_ips = Some(vec![free.to_string()]);
        }
    }
}

fn wants_one(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref().unwrap_or_default().is_empty() && spec.type_.as_deref() != Some("ExternalName")
}

/// A Service's virtual address.
pub fn of(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}
