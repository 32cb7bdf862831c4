//! Which pods stand behind a Service, for EndpointSlices and for the nodes' load balancers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_api::{DrainPhase, ObjectMeta};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::world::{Key, Work};
use super::{meta, pods};

/// A pod behind a Service.
pub struct Member {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Keeps its flows, takes no new ones.
    pub draining: bool,
}

/// The pods that a Service's traffic goes to now. A pod that is not ready leaves at once; one that drains stays for its flows.
pub fn members(work: &Work<'_>, service: &Service) -> Vec<Member> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let Some(selector) = &spec.selector else {
        return Vec::new();
    };
    let namespace = service.metadata.namespace.as_deref();
    let not_ready_too = spec.publish_not_ready_addresses.unwrap_or(false);
    let selected = work.objects.pods.values().filter(|p| {
        p.metadata.namespace.as_deref() == namespace && meta::selects(selector, p.metadata.labels.as_ref())
    });
    let member = |pod: &Arc<Pod>| {
        let phase = pods::drain(pod).map(|d| d.phase);
        let draining = phase == Some(DrainPhase::Draining);
        let serves = phase.is_none() && (not_ready_too || pods::is_ready(pod));
        let there = !pods::is_stopping(pod) && !pods::is_over(pod) && pods::node(pod).is_some();
        let address = pods::address(pod)?;
        (there && (draining || serves)).then(|| Member {
            pod: pod.clone(),
            address,
            draining,
        })
    };
    selected.filter_map(member).collect()
}

/// The port on the pod that a Service's port leads to.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|s| &s.containers);
            let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
            let found = ports.find(|p| p.name.as_deref() == Some(name))?;
            u16::try_from(found.container_port).ok()
        }
    }
}

/// Keeps one EndpointSlice for every Service with a selector.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<Service>() {
        let Some(service) = work.get::<Service>(&key) else {
            continue;
        };
        if service.metadata.deletion_timestamp.is_none()
            && service.spec.as_ref().is_some_and(|s| s.selector.is_some())
        {
            slice(work, &key, &service);
        }
    }
}

fn slice(work: &mut Work<'_>, key: &Key, service: &Service) {
    let members = members(work, service);
    let service_ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.clone())
        .unwrap_or_default();
    // Kubernetes makes one slice for each set of port numbers; here all pods of a Service agree on them.
    let first = members.first().map(|m| m.pod.clone());
    let ports = service_ports.iter().filter_map(|port| {
        let number = match &first {
            Some(pod) => target_port(pod, port)?,
            None => u16::try_from(port.port).ok()?,
        };
        let protocol = port.protocol.clone().or_else(|| Some("TCP".to_owned()));
        Some(EndpointPort {
            name: port.name.clone(),
            port: Some(i32::from(number)),
            protocol,
            ..Default::default()
        })
    });
    let ports: Vec<EndpointPort> = ports.collect();
    let endpoints: Vec<Endpoint> = members.iter().map(endpoint).collect();
    if !work.objects.endpoint_slices.contains_key(key) {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(meta::pairs(&[
                ("kubernetes.io/service-name", &key.name),
                ("endpointslice.kubernetes.io/managed-by", "gantry.dev"),
            ])),
            owner_references: Some(vec![meta::owner("v1", "Service", &service.metadata)]),
            ..Default::default()
        };
        work.create(EndpointSlice {
            metadata,
            address_type: "IPv4".to_owned(),
            ..Default::default()
        });
    }
    if let Some(slice) = work.edit::<EndpointSlice>(key) {
        slice.endpoints = Some(endpoints);
        slice.ports = Some(ports);
    }
}

fn endpoint(member: &Member) -> Endpoint {
    let meta = &member.pod.metadata;
    let ready = !member.draining && pods::is_ready(&member.pod);
    Endpoint {
        addresses: vec![member.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(pods::is_ready(&member.pod)),
            terminating: Some(member.draining),
        }),
        node_name: pods::node(&member.pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
