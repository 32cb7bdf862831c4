//! Services as every node is told.

use std::collections::BTreeMap;

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
    let members = endpoints::members(work, service);
    let ports = service.spec.as_ref()?.ports.iter().flatten();
    let ports = ports.filter_map(|p| {
        let protocol = match p.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        let backends = members.iter().filter_map(|m| backend(m, p)).collect();
        Some(ServicePort {
            port: u16::try_from(p.port).ok().filter(|port| *port > 0)?,
            protocol,
            backends,
        })
    });
    Some(ServiceConfig {
        vip,
        ports: ports.collect(),
    })
}

/// Nothing once its flows have ended, for one that is not ready too.
fn backend(member: &Member, port: &k8s::ServicePort) -> Option<Backend> {
    member.keeps_flows(port).then_some(())?;
    Some(Backend {
        pod: meta::uid(&member.pod.metadata).to_owned(),
        address: member.address,
        port: endpoints::target_port(&member.pod, port)?,
        weight: resources::weight(&member.pod),
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
            drained: false,
            reported: true,
        };
        assert_eq!(udp_idle_s(&member(&pod, true)), 30);
        assert_eq!(udp_idle_s(&member(&pod, false)), 300);
        assert_eq!(udp_idle_s(&member(&k8s::Pod::default(), true)), 300);
    }
}
