//! `gantry deploy`: everything is checked, then written, then waited for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gantry_api::{NetworkFunction, NetworkFunctionSpec, NetworkService, ObjectMeta};
use gantry_catalog::{Catalog, NfPackageSpec};
use serde_json::{Value, json};

use crate::args::{DeployArgs, Global, Wait};
use crate::client::{Client, key_value};
use crate::output::{self, Progress};
use crate::waiting::{Change, Patience, finish};
use crate::write::{Write, controller, create_package, find_package, missing_packages};
use crate::{catalog, image, manifest, plan};

/// `gantry deploy`.
pub async fn deploy(client: &Client, args: &DeployArgs, global: &Global) -> Result<()> {
    let catalog = catalog::load(args.catalog.as_deref())?;
    let manifests = manifests(args, &catalog)?;
    let packages = manifest::packages(&manifests, &catalog);
    let others = other_packages(client, &manifests, &packages).await?;
    let all: Vec<&NfPackageSpec> = packages.iter().copied().chain(&others).collect();
    manifest::check_rules(&manifests, &all)?;
    let containers = all.iter().flat_map(|p| &p.containers);
    image::ensure_present(global, containers.map(|c| c.image.as_str()))?;
    let missing = missing_packages(client, &packages).await?;
    let mut writes = Vec::new();
    for object in &manifests {
        writes.push(Write::prepare(client, object).await?);
    }
    if !args.room.queue {
        plan::ensure_fits(client, &manifests, &packages).await?;
    }
    for package in missing {
        create_package(client, package).await?;
    }
    let mut written = Vec::new();
    for write in writes {
        written.push(write.send(client).await?);
    }
    follow(client, &written, &args.wait, global).await
}

/// What is to be written: of a file, of a service of the catalog, or one function of a package.
fn manifests(args: &DeployArgs, catalog: &Catalog) -> Result<Vec<Value>> {
    if args.what == "-" || Path::new(&args.what).is_file() {
        return manifest::read(&args.what);
    }
    if let Some(service) = catalog.services.get(&args.what) {
        if args.replicas.is_some() || !args.set.is_empty() || !args.peers.is_empty() || args.version.is_some()
        {
            bail!(
                "{} is a service: --replicas, --set, --peer and --version go with a package",
                args.what
            );
        }
        let metadata = metadata(args.name.as_ref().unwrap_or(&args.what));
        return Ok(vec![json!(NetworkService::new(metadata, service.clone()))]);
    }
    let Some(package) = catalog.package(&args.what, args.version.as_deref()) else {
        bail!(
            "`{}` is neither a file nor in the catalog; `gantry catalog ls` lists what there is",
            args.what
        );
    };
    let spec = NetworkFunctionSpec {
        package: package.package.clone(),
        version: package.version.clone(),
        replicas: args.replicas.unwrap_or(1),
        values: parse_values(&args.set)?,
        peers: args.peers.iter().map(|p| key_value(p)).collect::<Result<_>>()?,
        ..NetworkFunctionSpec::default()
    };
    let metadata = metadata(args.name.as_ref().unwrap_or(&package.package));
    Ok(vec![json!(NetworkFunction::new(metadata, spec))])
}

/// The packages that the manifests use and the catalog does not have.
async fn other_packages(
    client: &Client,
    manifests: &[Value],
    known: &[&NfPackageSpec],
) -> Result<Vec<NfPackageSpec>> {
    let mut others = manifest::brought(manifests);
    for (name, version) in manifest::used(manifests) {
        let is = |p: &NfPackageSpec| p.package == name && p.version == version;
        if known.iter().copied().any(is) || others.iter().any(is) {
            continue;
        }
        let package = find_package(client, name, version).await?;
        others.push(package.with_context(|| {
            format!("there is no package {name} {version}; `gantry catalog ls` lists what there is")
        })?);
    }
    Ok(others)
}

/// Waits for the functions of what was written.
async fn follow(client: &Client, written: &[Value], wait: &Wait, global: &Global) -> Result<()> {
    let mut changes = Vec::new();
    let mut patience = Patience::new(wait);
    for object in written.iter().filter(|_| !wait.no_wait) {
        match manifest::kind(object) {
            NetworkFunction::KIND => changes.push(Change::of(object)?),
            NetworkService::KIND => changes.extend(functions_of(client, object, &mut patience).await?),
            _ => {}
        }
    }
    if !changes.is_empty() {
        return finish(client, &changes, wait, global.output).await;
    }
    let names: Vec<String> = written
        .iter()
        .map(|object| Ok(format!("{} {}", manifest::kind(object), manifest::name(object)?)))
        .collect::<Result<_>>()?;
    output::print(global.output, &json!({"written": names}), || {
        names.iter().map(|name| format!("{name} written\n")).collect()
    })
}

/// Waits until the orchestrator has made functions of this very generation of a service.
async fn functions_of(client: &Client, written: &Value, patience: &mut Patience) -> Result<Vec<Change>> {
    let name = manifest::name(written)?;
    let namespace = manifest::namespace(written, &client.namespace);
    let path = format!("{}/{name}", Client::own_in(namespace, NetworkService::PLURAL));
    let generation = written["metadata"]["generation"].as_i64().unwrap_or(1);
    let _progress = Progress::new(&format!("{name}: waiting for the orchestrator"));
    loop {
        if let Some(service) = patience.answer(client.find::<NetworkService>(&path).await)? {
            let service = service.with_context(|| format!("{name} was removed meanwhile"))?;
            if service.status.observed_generation >= generation {
                let functions = Client::own_in(namespace, NetworkFunction::PLURAL);
                let functions: Vec<Value> = client.list(&functions).await?;
                return members(&service, &functions);
            }
        }
        patience
            .pause(|| format!("{name} has not become functions"))
            .await?;
    }
}

/// The functions of a service; all of them, or in its own words why not.
fn members(service: &NetworkService, functions: &[Value]) -> Result<Vec<Change>> {
    let uid = service.metadata.uid.as_deref();
    let own = |f: &&Value| controller(f).and_then(|owner| owner["uid"].as_str()) == uid;
    let member = |name: &str| {
        functions
            .iter()
            .filter(own)
            .find(|f| f["metadata"]["name"] == name)
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let wanted = service.spec.functions.iter();
    wanted
        .map(|wanted| match member(&wanted.name) {
            Some(function) => Change::of(function),
            None => bail!("{name}: {}", service.status.message),
        })
        .collect()
}

/// `NAME=VALUE`, the value read as YAML, so that `5` is a number and `a` a text.
pub fn parse_values(set: &[String]) -> Result<BTreeMap<String, Value>> {
    set.iter()
        .map(|text| {
            let (name, value) = key_value(text)?;
            let value = serde_saphyr::from_str(&value).unwrap_or(Value::String(value));
            Ok((name, value))
        })
        .collect()
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use gantry_catalog::ServiceFunction;

    use super::*;

    #[test]
    fn a_service_whose_function_belongs_to_somebody_else_fails_with_its_message() {
        let mut service = NetworkService::default();
        service.metadata.name = Some("sip-core".to_owned());
        service.metadata.uid = Some("u".to_owned());
        service.spec.functions.push(ServiceFunction {
            name: "pcscf".to_owned(),
            ..ServiceFunction::default()
        });
        service.status.message = "pcscf: a NetworkFunction of this name exists".to_owned();
        let function = |owner: &str| {
            let owner = json!({"controller": true, "uid": owner});
            let metadata = json!({"name": "pcscf", "uid": "f", "generation": 2, "ownerReferences": [owner]});
            vec![json!({"metadata": metadata})]
        };
        assert_eq!(members(&service, &function("u")).unwrap().len(), 1);
        let error = members(&service, &function("other")).unwrap_err().to_string();
        assert!(error.contains("of this name exists"), "{error}");
    }
}
