//! The names that every node's DNS answers, as Kubernetes' DNS specification has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::labels;
use gantry_nodeagent_api::SrvTarget;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};

use super::super::endpoints::{self, Member};
use super::super::world::{Key, Work};
use super::super::{meta, pods, vip};

/// Addresses by name, and targets of SRV by name.
#[derive(Clone, Default)]
pub(super) struct Names {
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    pub srv: BTreeMap<String, Vec<SrvTarget>>,
}

/// `<service>.<namespace>.svc.<domain>`, `_<port>._<protocol>` before it, one name for each endpoint of a headless Service and for each
/// instance of a function, and `<dashed address>.<namespace>.pod.<domain>`.
pub(super) fn names(work: &Work<'_>) -> Names {
    let mut names = Names::default();
    for (key, service) in &work.objects.services {
        of_service(work, key, service, &mut names);
    }
    let domain = &work.settings.cluster_domain;
    for pod in work.objects.pods.values().filter(|p| !pods::is_stopping(p)) {
        if let Some(address) = pods::address(pod) {
            let dashed = address.to_string().replace('.', "-");
            let name = format!("{dashed}.{}.pod.{domain}", meta::namespace(&pod.metadata));
            names.addresses.insert(name.to_lowercase(), vec![address.into()]);
        }
    }
    of_instances(work, &mut names);
    names
}

/// Each instance of a function by its own name, for as long as there is one: who talks to it does so to the end, ready or not.
fn of_instances(work: &Work<'_>, names: &mut Names) {
    let is_instance =
        |pod: &&Arc<Pod>| meta::label(&pod.metadata, labels::INDEX).is_some() && !pods::is_over(pod);
    for pod in work.objects.pods.values().filter(is_instance) {
        let spec = pod.spec.as_ref();
        let (Some(hostname), Some(function), Some(address)) = (
            spec.and_then(|s| s.hostname.as_deref()),
            spec.and_then(|s| s.subdomain.as_deref()),
            pods::address(pod),
        ) else {
            continue;
        };
        let domain = &work.settings.cluster_domain;
        let namespace = meta::namespace(&pod.metadata);
        let name = format!("{hostname}.{function}.{namespace}.svc.{domain}").to_lowercase();
        names.addresses.insert(name, vec![address.into()]);
    }
}

fn of_service(work: &Work<'_>, key: &Key, service: &Service, names: &mut Names) {
    let domain = &work.settings.cluster_domain;
    let name = format!("{}.{}.svc.{domain}", key.name, key.namespace).to_lowercase();
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let named = ports.filter_map(|port| Some((srv_name(port, &name)?, port)));
    if let Some(vip) = vip::of(service) {
        for (srv, port) in named {
            let number = u16::try_from(port.port).ok().filter(|n| *n > 0);
            let target = number.map(|port| SrvTarget {
                name: name.clone(),
                port,
            });
            names.srv.insert(srv, target.into_iter().collect());
        }
        names.addresses.insert(name, vec![vip.into()]);
        return;
    }
    let mut serving = endpoints::members(work, service);
    serving.retain(endpoints::Member::takes_new);
    for (srv, port) in named {
        let targets = serving.iter().filter_map(|member| {
            Some(SrvTarget {
                name: endpoint_name(member, &name),
                port: endpoints::target_port(&member.pod, port).filter(|n| *n > 0)?,
            })
        });
        names.srv.insert(srv, targets.collect());
    }
    for member in &serving {
        let of_endpoint = names.addresses.entry(endpoint_name(member, &name)).or_default();
        of_endpoint.push(member.address.into());
    }
    let addresses = serving.iter().map(|m| m.address.into()).collect();
    names.addresses.insert(name, addresses);
}

/// `_sip._udp.<service>`, for a port with a name.
fn srv_name(port: &ServicePort, service: &str) -> Option<String> {
    let name = port.name.as_deref().filter(|n| !n.is_empty())?;
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    Some(format!("_{name}._{protocol}.{service}").to_lowercase())
}

/// The pod's host name within the Service; its address with dashes if it has none.
fn endpoint_name(member: &Member, service: &str) -> String {
    let hostname = member.pod.spec.as_ref().and_then(|s| s.hostname.as_deref());
    let label = hostname
        .filter(|h| !h.is_empty())
        .map_or_else(|| member.address.to_string().replace('.', "-"), str::to_lowercase);
    format!("{label}.{service}")
}
