//! Services as every node is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gantry_nodeagent_api::{Backend, DEFAULT_UDP_IDLE_S, Protocol, ServiceConfig, ServicePort};
use k8s_openapi::api::core::v1::{self as k8s, Service};

use super::super::endpoints::{self, Member};
use super::super::world::{Key, Work};
use super::super::{meta, pods, resources, vip};

/// Every Service with a virtual address.
pub(super) fn configs(work: &Work<'_>) -> BTreeMap<Key, ServiceConfig> {
    let services = work.objects.services.iter();
    services
        .filter_map(|(key, service)| Some((key.clone(), config(work, service)?)))
        .collect()
}

fn config(work: &Work<'_>, service: &Service) -> Option<ServiceConfig> {
    let vip = vip::of(service)?;
    let told = told(work, service, vip);
    let members = endpoints::members(work, service);
    let ports = service.spec.as_ref()?.ports.iter().flatten();
    let ports = ports.filter_map(|p| {
        let protocol = match p.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        let port = u16::try_from(p.port).ok().filter(|port| *port > 0)?;
        let mut backends: Vec<Backend> = members.iter().filter_map(|m| backend(work, m, p)).collect();
        let before = told.iter().filter(|t| (t.port, t.protocol) == (port, protocol));
        let at = |b: &Backend| (b.address, b.port);
        let mut there: BTreeSet<_> = backends.iter().map(at).collect();
        for old in before.flat_map(|t| &t.backends) {
            if !there.contains(&at(old))
                && let Some(left) = left(work, service, old)
            {
                there.insert(at(old));
                backends.push(left);
            }
        }
        Some(ServicePort {
            port,
            protocol,
            backends,
        })
    });
    Some(ServiceConfig {
        vip,
        ports: ports.collect(),
    })
}

/// The Service's ports as nodes were told them last.
fn told<'a>(work: &'a Work<'_>, service: &Service, vip: Ipv4Addr) -> Vec<&'a ServicePort> {
    let key = Key::of(&service.metadata).to_string();
    let configs = work.sent.values().filter_map(|config| config.services.get(&key));
    configs
        .filter(|told| told.vip == vip)
        .flat_map(|told| &told.ports)
        .collect()
}

/// The Service has turned away from a pod (labels, selector, target port) that goes on: established flows stay where they are,
/// until the container behind the port has ended.
fn left(work: &Work<'_>, service: &Service, old: &Backend) -> Option<Backend> {
    // What runs has a place, by its uid.
    let place = work.plan.placements.get(&old.pod)?;
    let pod = work.objects.pods.get(&Key::new(&place.namespace, &place.name))?;
    let is_it = meta::uid(&pod.metadata) == old.pod && place.namespace == meta::namespace(&service.metadata);
    is_it.then_some(())?;
    endpoints::keeps_flows(work, pod, old.port).then(|| Backend {
        draining: true,
        udp_idle_s: pods::extras(pod).drain.flow_idle_seconds,
        ..old.clone()
    })
}

/// Nothing once its flows have ended, for one that is not ready too.
fn backend(work: &Work<'_>, member: &Member, port: &k8s::ServicePort) -> Option<Backend> {
    let placement = work.plan.placements.get(meta::uid(&member.pod.metadata));
    member.keeps_flows(work, port).then_some(())?;
    Some(Backend {
        pod: meta::uid(&member.pod.metadata).to_owned(),
        address: member.address,
        port: endpoints::target_port(&member.pod, port)?,
        weight: placement.map_or(1, resources::weight),
        draining: !member.takes_new(),
        udp_idle_s: udp_idle_s(member),
    })
}

/// Only the package knows which silence ends a session; while a pod takes new flows, they stay where they are as long as they
/// may.
fn udp_idle_s(member: &Member) -> u32 {
    if !member.takes_new() {
        pods::extras(&member.pod).drain.flow_idle_seconds
    } else {
        DEFAULT_UDP_IDLE_S
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_api::{PodExtras, labels};

    use super::*;

    #[test]
    fn a_draining_pods_flows_may_be_silent_for_as_long_as_its_package_says() {
        let mut extras = PodExtras::default();
        extras.drain.flow_idle_seconds = 30;
        let mut pod = k8s::Pod::default();
        let extras = serde_json::to_string(&extras).expect("a struct of plain fields");
        pod.metadata.annotations = Some([(labels::EXTRAS.to_owned(), extras)].into());
        let member = |pod: &k8s::Pod, draining| Member {
            pod: Arc::new(pod.clone()),
            address: [10, 85, 0, 2].into(),
            published: false,
            serving: true,
            terminating: draining,
        };
        assert_eq!(udp_idle_s(&member(&pod, true)), 30);
        assert_eq!(udp_idle_s(&member(&pod, false)), 300);
        assert_eq!(udp_idle_s(&member(&k8s::Pod::default(), true)), 300);
    }
}
