//! A function's configuration from its package's templates, and the revision that follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::{NetworkFunction, NfPackage};
use k8s_openapi::api::core::v1::Service;

use super::super::world::{Key, Work};
use super::super::{quarantine, vip};
use super::rendered::{self, Inputs, Peer, Unmade};
use super::{Blueprint, package_key};

/// All that the pods of a function are made from, or in words what is missing.
pub(super) fn blueprint(work: &mut Work<'_>, function: Arc<NetworkFunction>) -> Result<Blueprint, Unmade> {
    let key = Key::of(&function.metadata);
    if let Some(problem) = work.problems.get(&key) {
        return Err(problem.clone().into());
    }
    if quarantine::has(work, "Service", &key) {
        return Err(format!(
            "its Service `{}` cannot be read: all stays as it is until that is written anew or deleted",
            key.name
        )
        .into());
    }
    let spec = &function.spec;
    let package = work.get::<NfPackage>(&package_key(&function)).ok_or_else(|| {
        format!(
            "package {} {} is not in the catalog: `gantry catalog ls` shows what is",
            spec.package, spec.version
        )
    })?;
    let problems: Vec<String> = spec
        .problems(&package.spec)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !problems.is_empty() {
        return Err(problems.join("; ").into());
    }
    let own_vip = match work.get::<Service>(&key) {
        Some(service) => vip::of(&service)
            .map(|v| v.to_string())
            .ok_or_else(|| "its Service has no address yet".to_owned())?,
        None => String::new(),
    };
    let peers = peers(work, &key.namespace, &function, &package)?;
    let mut values = package.spec.values.clone();
    values.extend(spec.values.clone());
    let inputs = Inputs {
        package,
        named: (spec.package.clone(), spec.version.clone()),
        vip: own_vip,
        values,
        peers,
    };
    let made = rendered::make(work, &key, &inputs)?;
    Ok(Blueprint {
        function,
        package: inputs.package,
        revision: made.revision.clone(),
        files: made.files.clone(),
    })
}

fn peers(
    work: &Work<'_>,
    namespace: &str,
    function: &NetworkFunction,
    package: &NfPackage,
) -> Result<BTreeMap<String, Peer>, String> {
    let mut peers = BTreeMap::new();
    for need in &package.spec.needs {
        let name = function.spec.peers.get(&need.function).ok_or_else(|| {
            format!(
                "it needs a {} as `{}`: name one under spec.peers",
                need.role, need.function
            )
        })?;
        let missing = || {
            format!(
                "its peer `{name}` (for `{}`) has no virtual address for `{}`: deploy it first",
                need.function, need.interface
            )
        };
        let service = work
            .get::<Service>(&Key::new(namespace, name))
            .ok_or_else(missing)?;
        let address = vip::of(&service).ok_or_else(missing)?;
        let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref());
        let port = ports
            .into_iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(&need.interface))
            .ok_or_else(missing)?;
        let port = u16::try_from(port.port).map_err(|_| missing())?;
        peers.insert(
            need.function.clone(),
            Peer {
                name: name.clone(),
                vip: address.to_string(),
                port,
            },
        );
    }
    Ok(peers)
}

/// The key of a file in the ConfigMap: its path without slashes.
pub(super) fn file_key(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "-")
}
