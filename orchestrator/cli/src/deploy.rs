//! `gantry deploy` and `gantry undeploy`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gantry_api::{
    NetworkFunction, NetworkFunctionSpec, NetworkService, NetworkServiceSpec, NfPackage, ObjectMeta,
};
use gantry_catalog::{Catalog, NfPackageSpec};
use serde_json::Value;

use crate::args::{DeployArgs, Global, Output, UndeployArgs, Wait};
use crate::client::{Client, key_value};
use crate::output::{self, Progress};
use crate::{catalog, image, manifest, operation};

/// `gantry deploy`.
pub async fn deploy(client: &Client, args: &DeployArgs, global: &Global) -> Result<()> {
    if args.what == "-" || Path::new(&args.what).is_file() {
        return deploy_file(client, args, global.output).await;
    }
    let catalog = catalog::load(args.catalog.as_deref())?;
    if let Some(service) = catalog.services.get(&args.what) {
        return deploy_service(client, args, service, &catalog, global).await;
    }
    let Some(package) = catalog.package(&args.what, args.version.as_deref()) else {
        bail!(
            "`{}` is neither a file nor in the catalog; `gantry catalog ls` lists what there is",
            args.what
        );
    };
    deploy_package(client, args, package, global).await
}

async fn deploy_service(
    client: &Client,
    args: &DeployArgs,
    service: &NetworkServiceSpec,
    catalog: &Catalog,
    global: &Global,
) -> Result<()> {
    if args.replicas.is_some() || !args.set.is_empty() || !args.peers.is_empty() || args.version.is_some() {
        bail!(
            "{} is a service: --replicas, --set, --peer and --version go with a package",
            args.what
        );
    }
    let name = args.name.clone().unwrap_or_else(|| args.what.clone());
    let packages = service
        .functions
        .iter()
        .filter_map(|f| catalog.package(&f.package, Some(&f.version)));
    let packages: BTreeMap<&str, &NfPackageSpec> = packages.map(|p| (p.package.as_str(), p)).collect();
    image::ensure_present(
        global,
        packages
            .values()
            .flat_map(|p| &p.containers)
            .map(|c| c.image.as_str()),
    )?;
    for package in packages.values() {
        ensure_package(client, package).await?;
    }
    let object = NetworkService::new(metadata(&name), service.clone());
    put(
        client,
        &client.own(NetworkService::PLURAL),
        &name,
        serde_json::to_value(object)?,
    )
    .await?;
    let functions: Vec<&str> = service.functions.iter().map(|f| f.name.as_str()).collect();
    finish_functions(client, &functions, &args.wait, global.output).await
}

async fn deploy_package(
    client: &Client,
    args: &DeployArgs,
    package: &NfPackageSpec,
    global: &Global,
) -> Result<()> {
    let name = args.name.clone().unwrap_or_else(|| package.package.clone());
    let spec = NetworkFunctionSpec {
        package: package.package.clone(),
        version: package.version.clone(),
        replicas: args.replicas.unwrap_or(1),
        values: parse_values(&args.set)?,
        peers: args.peers.iter().map(|p| key_value(p)).collect::<Result<_>>()?,
        ..NetworkFunctionSpec::default()
    };
    if let Some(problem) = spec.problems(package).first() {
        bail!("{name}: {}", problem.message);
    }
    image::ensure_present(global, package.containers.iter().map(|c| c.image.as_str()))?;
    ensure_package(client, package).await?;
    let object = NetworkFunction::new(metadata(&name), spec);
    put(
        client,
        &client.own(NetworkFunction::PLURAL),
        &name,
        serde_json::to_value(object)?,
    )
    .await?;
    finish_functions(client, &[&name], &args.wait, global.output).await
}

async fn deploy_file(client: &Client, args: &DeployArgs, output: Output) -> Result<()> {
    let manifests = manifest::read(&args.what)?;
    let catalog = catalog::load(args.catalog.as_deref())?;
    for package in manifest::packages(&manifests, &catalog) {
        ensure_package(client, package).await?;
    }
    let mut functions = Vec::new();
    for object in &manifests {
        let collection = manifest::collection_path(client, object).await?;
        put(client, &collection, manifest::name(object)?, object.clone()).await?;
        functions.extend(manifest::function_names(object));
    }
    let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
    finish_functions(client, &functions, &args.wait, output).await
}

/// Creates the object, or replaces the spec of the one that is there.
async fn put(client: &Client, collection: &str, name: &str, mut object: Value) -> Result<()> {
    let path = format!("{collection}/{name}");
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    let Some(existing) = client.find::<Value>(&path).await? else {
        client.create(collection, &object).await?;
        return Ok(());
    };
    object["metadata"]["resourceVersion"] = existing["metadata"]["resourceVersion"].clone();
    client.replace(&path, &object).await.map(drop)
}

/// Puts a package into the API; a version, once there, never changes.
pub async fn ensure_package(client: &Client, package: &NfPackageSpec) -> Result<()> {
    let name = format!("{}-{}", package.package, package.version);
    let collection = Client::own_cluster(NfPackage::PLURAL);
    match client.find::<NfPackage>(&format!("{collection}/{name}")).await? {
        None => client
            .create(&collection, &NfPackage::new(metadata(&name), package.clone()))
            .await
            .map(drop),
        Some(existing) if existing.spec == *package => Ok(()),
        Some(_) => bail!(
            "package {} {} is deployed with other content; give the changed package a new version",
            package.package,
            package.version
        ),
    }
}

async fn finish_functions(client: &Client, functions: &[&str], wait: &Wait, output: Output) -> Result<()> {
    let mut progress = Some(Progress::new("waiting for the orchestrator"));
    for name in functions {
        let path = format!("{}/{name}", client.own(NetworkFunction::PLURAL));
        let generation = loop {
            if let Some(nf) = client.find::<NetworkFunction>(&path).await? {
                break nf.metadata.generation.unwrap_or(1);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        drop(progress.take());
        operation::finish(client, name, generation, wait, output).await?;
    }
    Ok(())
}

/// `gantry undeploy`.
pub async fn undeploy(client: &Client, args: &UndeployArgs) -> Result<()> {
    for name in &args.names {
        let service = client
            .delete(&format!("{}/{name}", client.own(NetworkService::PLURAL)))
            .await?;
        let function = format!("{}/{name}", client.own(NetworkFunction::PLURAL));
        if !service && !client.delete(&function).await? {
            bail!(
                "no network service or function `{name}` in namespace {}; see `gantry status`",
                client.namespace
            );
        }
        if !args.wait.no_wait {
            wait_gone(client, name, args.wait.timeout).await?;
        }
        output::write_out(&format!("{name} undeployed\n"))?;
    }
    Ok(())
}

async fn wait_gone(client: &Client, name: &str, timeout_s: u64) -> Result<()> {
    let started = std::time::Instant::now();
    let mut progress = Progress::new(&format!("{name}: stopping"));
    let label = gantry_api::labels::SERVICE;
    let queries = [
        format!(
            "{}?labelSelector={label}%3D{name}",
            client.own(NetworkFunction::PLURAL)
        ),
        format!(
            "/api/v1/namespaces/{}/pods?labelSelector={}%3D{name}",
            client.namespace,
            gantry_api::labels::NF
        ),
        format!(
            "/api/v1/namespaces/{}/pods?labelSelector={label}%3D{name}",
            client.namespace
        ),
    ];
    loop {
        let function = format!("{}/{name}", client.own(NetworkFunction::PLURAL));
        let mut left = usize::from(client.find::<Value>(&function).await?.is_some());
        for query in &queries {
            left += client.list::<Value>(query).await?.len();
        }
        if left == 0 {
            return Ok(());
        }
        progress.set(&format!("{name}: {left} objects left"));
        if timeout_s > 0 && started.elapsed().as_secs() >= timeout_s {
            bail!("{name} is still stopping after {timeout_s} s; it goes on: see `gantry status`");
        }
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
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

/// The text of a file, or of standard input for `-`.
pub fn read_text(path: &str) -> Result<String> {
    if path != "-" {
        return std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    Ok(text)
}
