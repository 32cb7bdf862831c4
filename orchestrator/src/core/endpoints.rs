//! Which pods stand behind a Service, for EndpointSlices and for the nodes' load balancers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_api::{DrainPhase, ObjectMeta};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::agents::Agent;
use super::world::{Key, Work};
use super::{leads, meta, pods};

/// A pod behind a Service.
pub struct Member {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its address.
    pub address: Ipv4Addr,
    /// The Service wants pods that are not ready, too.
    pub published: bool,
    /// It is ready.
    pub serving: bool,
    /// It is being deleted, or drains: keeps its flows, takes no new ones.
    pub terminating: bool,
}

impl Member {
    /// As Kubernetes' endpoint slices mean it.
    pub fn ready(&self) -> bool {
        self.published || (self.serving && !self.terminating)
    }

    /// New flows go to it.
    pub fn takes_new(&self) -> bool {
        self.ready() && !self.terminating
    }

    /// Whether flows through a port of the Service can still end there.
    pub fn keeps_flows(&self, work: &Work<'_>, port: &ServicePort) -> bool {
        target_port(&self.pod, port).is_some_and(|number| keeps_flows(work, &self.pod, number))
    }
}

/// Whether flows to a port of a pod can still end there: what is not ready keeps those that it has, until the container behind
/// the port has ended, or it has drained. While the agent is away, one that had ended may run again and have flows.
pub fn keeps_flows(work: &Work<'_>, pod: &Pod, port: u16) -> bool {
    let drained = pods::drain(pod).is_some_and(|d| d.phase != DrainPhase::Draining);
    let Some(node) = pods::node(pod).filter(|_| !drained && !pods::is_over(pod)) else {
        return false;
    };
    let reported = work.agents.get(node).is_some_and(Agent::has_reported);
    !reported || pods::runs(pod, port)
}

/// The pods of a Service, ready or not, but for those that are over.
pub fn members(work: &Work<'_>, service: &Service) -> Vec<Member> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let Some(selector) = &spec.selector else {
        return Vec::new();
    };
    let namespace = meta::namespace(&service.metadata);
    let published = spec.publish_not_ready_addresses.unwrap_or(false);
    let selected = work.objects.pods_in(namespace);
    let selected = selected.filter(|p| meta::selects(selector, p.metadata.labels.as_ref()));
    let member = |pod: &Arc<Pod>| {
        pods::node(pod).filter(|_| !pods::is_over(pod))?;
        Some(Member {
            address: pods::address(pod)?,
            published,
            serving: pods::is_ready(pod),
            terminating: pods::is_leaving(pod),
            pod: pod.clone(),
        })
    };
    selected.filter_map(member).collect()
}

/// The port on the pod that a Service's port leads to.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let protocol = |text: &Option<String>| text.clone().unwrap_or_else(|| "TCP".to_owned());
            let wanted = protocol(&port.protocol);
            let mut ports = pods::lasting(pod).flat_map(|c| c.ports.iter().flatten());
            let found = ports.find(|p| p.name.as_deref() == Some(name) && protocol(&p.protocol) == wanted)?;
            found.container_port
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// Keeps one EndpointSlice for every Service with a selector.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<Service>() {
        let Some(service) = work.get::<Service>(&key) else {
            continue;
        };
        if service.metadata.deletion_timestamp.is_some() {
            continue;
        }
        leads::tell(work, &key, &service);
        if service.spec.as_ref().is_some_and(|s| s.selector.is_some()) {
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
            // Never absent (discovery/v1): clients look at it without asking.
            name: Some(port.name.clone().unwrap_or_default()),
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
    Endpoint {
        addresses: vec![member.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready()),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::lab::Lab;
    use super::super::world::Object;
    use super::*;

    const READY: &str = "True";
    const UNREADY: &str = "False";

    /// A pod whose container runs or not.
    fn pod(name: &str, last: u8, ready: &str, runs: bool, more: Value) -> Object {
        let state = if runs {
            json!({"running": {}})
        } else {
            json!({"terminated": {"exitCode": 1}})
        };
        let mut metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": "e"}});
        if let (Some(metadata), Value::Object(more)) = (metadata.as_object_mut(), more) {
            metadata.extend(more);
        }
        let pod = json!({"metadata": metadata,
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": format!("10.85.0.{last}"),
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": state}]}});
        Object::Pod(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn drain(phase: DrainPhase) -> Value {
        let state = gantry_api::DrainState {
            phase,
            ..Default::default()
        };
        json!({"annotations": {gantry_api::labels::DRAIN: serde_json::to_string(&state).unwrap()}})
    }

    /// Pods in every state, by name: the slice's ready, serving, terminating; what the nodes are told of it.
    fn seen(published: bool) -> Vec<String> {
        let mut lab = Lab::new(&["n"]);
        let deleted = || json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        for object in [
            pod("a-ready", 2, READY, true, json!({})),
            pod("b-unready", 3, UNREADY, true, json!({})),
            pod("c-ended", 4, UNREADY, false, json!({})),
            pod("d-deleted", 5, READY, true, deleted()),
            pod("e-draining", 6, READY, true, drain(DrainPhase::Draining)),
            pod("f-drained", 7, READY, true, drain(DrainPhase::Quiescing)),
        ] {
            lab.world.objects.put(object);
        }
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "default", "uid": "s"},
            "spec": {"selector": {"app": "e"}, "ports": [{"port": 9000}], "publishNotReadyAddresses": published},
        }))
        .unwrap();
        let mut work = Work::new(&lab.world, 1);
        let port = &service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
        let told = |m: &Member| match (m.keeps_flows(&work, port), m.takes_new()) {
            (false, _) => "gone",
            (true, true) => "active",
            (true, false) => "keeps",
        };
        let members = members(&work, &service);
        let told: Vec<&str> = members.iter().map(told).collect();
        slice(&mut work, &Key::new("default", "e"), &service);
        let slice = &work.objects.endpoint_slices[&Key::new("default", "e")];
        let ports = slice.ports.iter().flatten();
        let names: Vec<_> = ports.map(|port| port.name.as_deref()).collect();
        assert_eq!(names, [Some("")], "clients expect a name");
        let endpoints = slice.endpoints.iter().flatten();
        let line = |(endpoint, told): (&Endpoint, &str)| {
            let name = endpoint.target_ref.as_ref().unwrap().name.clone().unwrap();
            let conditions = endpoint.conditions.as_ref().unwrap();
            let all = [conditions.ready, conditions.serving, conditions.terminating];
            let letters: String = all
                .iter()
                .zip("rst".chars())
                .map(|(c, l)| if *c == Some(true) { l } else { '-' })
                .collect();
            format!("{name} {letters} {told}")
        };
        endpoints.zip(told).map(line).collect()
    }

    #[test]
    fn pods_that_are_not_ready_are_listed_and_keep_their_flows_until_they_have_ended() {
        assert_eq!(
            seen(false),
            [
                "a-ready rs- active",
                "b-unready --- keeps",
                "c-ended --- gone",
                "d-deleted -st keeps",
                "e-draining -st keeps",
                "f-drained -st gone",
            ]
        );
    }

    #[test]
    fn what_is_said_to_have_ended_may_have_flows_again_while_its_agent_is_away() {
        let mut lab = Lab::new(&["n"]);
        lab.world.objects.put(pod("p", 2, UNREADY, false, json!({})));
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "default", "uid": "s"},
            "spec": {"selector": {"app": "e"}, "ports": [{"port": 9000}]},
        }))
        .unwrap();
        let port = &service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
        let told = |lab: &Lab| {
            let work = Work::new(&lab.world, 1);
            let members = members(&work, &service);
            (members[0].keeps_flows(&work, port), members[0].takes_new())
        };
        assert_eq!(told(&lab), (false, false));
        lab.world.agents.disconnected("n", 1);
        assert_eq!(told(&lab), (true, false));
    }

    #[test]
    fn a_service_can_publish_pods_that_are_not_ready() {
        assert_eq!(
            seen(true),
            [
                "a-ready rs- active",
                "b-unready r-- active",
                "c-ended r-- gone",
                "d-deleted rst keeps",
                "e-draining rst keeps",
                "f-drained rst gone",
            ]
        );
    }
}
