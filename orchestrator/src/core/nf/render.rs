//! A function's configuration from its package's templates, and the revision that follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::{NetworkFunction, NfPackage};
use gantry_catalog::template;
use k8s_openapi::api::core::v1::Service;
use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::Value;

use super::super::world::{Key, Work};
use super::super::{meta, vip};
use super::{Blueprint, package_key};

#[derive(Serialize)]
struct Peer {
    name: String,
    vip: String,
    port: u16,
}

/// All that the pods of a function are made from, or in words what is missing.
pub(super) fn blueprint(work: &Work<'_>, function: Arc<NetworkFunction>) -> Result<Blueprint, String> {
    let key = Key::of(&function.metadata);
    if let Some(problem) = work.problems.get(&key) {
        return Err(problem.clone());
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
        return Err(problems.join("; "));
    }
    let own_vip = match work.get::<Service>(&key) {
        Some(service) => vip::of(&service)
            .map(|v| v.to_string())
            .ok_or("its Service has no address yet")?,
        None => String::new(),
    };
    let peers = peers(work, &key.namespace, &function, &package)?;
    let mut values = package.spec.values.clone();
    values.extend(spec.values.clone());
    let files = render(&package, &key, &own_vip, &values, &peers)?;
    let revision = meta::hash(&[
        &spec.package,
        &spec.version,
        &json(&values),
        &json(&peers),
        &json(&files),
    ])[..10]
        .to_owned();
    Ok(Blueprint {
        function,
        package,
        revision,
        files,
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

fn render(
    package: &NfPackage,
    key: &Key,
    vip: &str,
    values: &BTreeMap<String, Value>,
    peers: &BTreeMap<String, Peer>,
) -> Result<BTreeMap<String, String>, String> {
    let environment = package.spec.syntax().environment();
    let own = context! { name => key.name.as_str(), namespace => key.namespace.as_str(), vip => vip };
    let context = BTreeMap::from([
        ("values", minijinja::Value::from(Serde(values))),
        ("peers", minijinja::Value::from(Serde(peers))),
        ("self", own),
    ]);
    let mut files = BTreeMap::new();
    for file in &package.spec.config {
        let text = package.spec.templates.get(&file.template).ok_or_else(|| {
            format!(
                "package {} has no template `{}`",
                package.spec.package, file.template
            )
        })?;
        if let Some(clash) = template::clash(package.spec.syntax(), &file.template, text) {
            return Err(format!("package {}: {clash}", package.spec.package));
        }
        let rendered = environment.render_named_str(&file.template, text, &context);
        files.insert(
            file_key(&file.path),
            rendered.map_err(|e| {
                format!(
                    "template `{}` of package {}: {e:#}",
                    file.template, package.spec.package
                )
            })?,
        );
    }
    Ok(files)
}

/// The key of a file in the ConfigMap: its path without slashes.
pub(super) fn file_key(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "-")
}

fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("plain data with string keys has a JSON form")
}
