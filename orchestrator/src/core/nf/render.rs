//! A function's configuration from its package's templates, and the revision that follows from it.

use std::sync::Arc;

use gantry_api::{NetworkFunction, NfPackage};
use gantry_catalog::{Context, OwnContext};
use k8s_openapi::api::core::v1::Service;

use super::super::world::{Key, Work};
use super::super::{quarantine, vip};
use super::rendered::{self, Inputs, Unmade};
use super::{Blueprint, around, identity, package_key};

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
    let own = own(work, &key, &package)?;
    let peers = around::peers(work, &function, &package.spec.needs)?;
    if let Some(dns) = &package.spec.dns
        && peers.get(&dns.server).is_none_or(|peer| peer.vip.is_none())
    {
        return Err(format!(
            "its pods ask `{}` for names, which has no virtual address to be asked at",
            dns.server
        )
        .into());
    }
    let mut values = package.spec.values.clone();
    values.extend(spec.values.clone());
    let inputs = Inputs {
        package,
        named: (spec.package.clone(), spec.version.clone()),
        context: Context {
            values,
            peers,
            own,
            functions: None,
        },
    };
    let made = rendered::make(work, &key, &inputs)?;
    let Context {
        values, peers, own, ..
    } = inputs.context;
    Ok(Blueprint {
        function,
        package: inputs.package,
        revision: made.revision.clone(),
        files: made.files.clone(),
        values,
        peers,
        own,
    })
}

/// The function as its own templates see it.
fn own(work: &Work<'_>, key: &Key, package: &NfPackage) -> Result<OwnContext, String> {
    let vip = match work.get::<Service>(key) {
        Some(service) if !package.spec.headless => {
            let vip = vip::of(&service).ok_or_else(|| "its Service has no address yet".to_owned())?;
            Some(vip.to_string())
        }
        _ => None,
    };
    Ok(OwnContext {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        host: identity::host(work, key),
        vip,
        instance: None,
    })
}
