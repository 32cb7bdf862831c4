//! What is around a function: its peers with their instances, and the other functions of its service.

use std::collections::BTreeMap;

use gantry_api::{NetworkFunction, NfPackage, ObjectMeta, labels};
use gantry_catalog::{FunctionContext, InstanceContext, Need, PeerContext};
use k8s_openapi::api::core::v1::{Pod, Service};

use super::super::world::{Key, Work};
use super::super::{meta, pods, resources, vip};
use super::{identity, package_key};

/// The peers that a function is wired to, without their instances; in words what is missing.
pub(super) fn peers(
    work: &Work<'_>,
    function: &NetworkFunction,
    needs: &[Need],
) -> Result<BTreeMap<String, PeerContext>, String> {
    let namespace = meta::namespace(&function.metadata);
    let mut peers = BTreeMap::new();
    for need in needs {
        match function.spec.peers.get(&need.function) {
            Some(name) => {
                peers.insert(
                    need.function.clone(),
                    peer(work, &Key::new(namespace, name), need)?,
                );
            }
            None if need.optional => {}
            None => {
                return Err(format!(
                    "it needs a {} as `{}`: name one under spec.peers",
                    need.role, need.function
                ));
            }
        }
    }
    Ok(peers)
}

fn peer(work: &Work<'_>, key: &Key, need: &Need) -> Result<PeerContext, String> {
    let missing = || {
        format!(
            "its peer `{}` (for `{}`) does not serve `{}`: deploy it first",
            key.name, need.function, need.interface
        )
    };
    let service = work.get::<Service>(key).ok_or_else(missing)?;
    let address = vip::of(&service);
    if address.is_none() && !vip::is_headless(&service) {
        return Err(missing());
    }
    let mut ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let port = ports
        .find(|p| p.name.as_deref() == Some(&need.interface))
        .ok_or_else(missing)?;
    Ok(PeerContext {
        name: key.name.clone(),
        host: identity::host(work, key),
        vip: address.map(|vip| vip.to_string()),
        port: u16::try_from(port.port).map_err(|_| missing())?,
        instances: None,
    })
}

/// The instances of a function that have an address, in their order, those that drain among them.
pub(super) fn instances(work: &Work<'_>, function: &Key) -> Vec<InstanceContext> {
    let Some(object) = work.get::<NetworkFunction>(function) else {
        return Vec::new();
    };
    let host = identity::host(work, function);
    let of_pod = |pod: &Pod| {
        let (index, address) = (identity::index(pod)?, pods::address(pod)?);
        let name = meta::name(&pod.metadata).to_owned();
        let placement = work.plan.placements.get(meta::uid(&pod.metadata));
        (!pods::is_over(pod)).then(|| InstanceContext {
            index,
            host: format!("{name}.{host}"),
            name,
            address: address.to_string(),
            weight: placement.map_or(1, resources::weight),
            ready: pods::is_ready(pod),
            draining: pods::is_leaving(pod),
        })
    };
    let all = work.pods_of(&object.metadata);
    let mut instances: Vec<_> = all.iter().filter_map(|pod| of_pod(pod)).collect();
    instances.sort_by_key(|instance| instance.index);
    instances
}

/// All functions of the same service; a function without one knows itself.
pub(super) fn service(work: &Work<'_>, function: &ObjectMeta) -> Vec<FunctionContext> {
    let of = |meta: &ObjectMeta| meta::label(meta, labels::SERVICE).map(str::to_owned);
    let service = of(function);
    let namespace = meta::namespace(function);
    let from = work.objects.functions.range(Key::new(namespace, "")..);
    let all = from.take_while(|(key, _)| key.namespace == namespace);
    let beside = all.filter(|(key, other)| {
        let is_same = service.is_some() && of(&other.metadata) == service;
        is_same || key.name == meta::name(function)
    });
    beside
        .filter_map(|(key, other)| {
            let package = work.get::<NfPackage>(&package_key(other))?;
            let vip = work.get::<Service>(key).and_then(|service| vip::of(&service));
            Some(FunctionContext {
                name: key.name.clone(),
                host: identity::host(work, key),
                vip: vip.map(|vip| vip.to_string()),
                instances: instances(work, key),
                ..FunctionContext::of(&package.spec)
            })
        })
        .collect()
}
