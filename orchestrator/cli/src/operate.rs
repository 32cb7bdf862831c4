//! Changes of a running network function: scale, resize, upgrade, rollback. Each writes the wanted spec and lets the
//! orchestrator make the operation.

use anyhow::{Context, Result, bail};
use gantry_api::{NetworkFunction, NetworkFunctionSpec, NfPackage};
use gantry_catalog::{Cpu, MilliCpu, NfContainer, NfPackageSpec, ResourceOverride};
use serde_json::json;

use crate::args::{Output, ResizeArgs, RollbackArgs, ScaleArgs, UpgradeArgs, Wait};
use crate::client::{Client, is_status, missing_function};
use crate::{catalog, deploy, operation, output, pod};

/// `gantry scale`.
pub async fn scale(client: &Client, args: &ScaleArgs, output: Output) -> Result<()> {
    change(client, &args.function, &args.wait, output, |_, spec| {
        spec.replicas = args.replicas;
        Ok(())
    })
    .await
}

/// `gantry resize`.
pub async fn resize(client: &Client, args: &ResizeArgs, output: Output) -> Result<()> {
    if load(client, &args.name).await?.is_none() {
        return pod::resize(client, args).await;
    }
    change(client, &args.name, &args.wait, output, |package, spec| {
        let container = pick_container(package, args.container.as_deref())?;
        let wanted = spec.resources.entry(container.name.clone()).or_default();
        apply_size(container, wanted, args)
    })
    .await
}

/// `gantry upgrade`.
pub async fn upgrade(client: &Client, args: &UpgradeArgs, output: Output) -> Result<()> {
    if args.version.is_none() && args.set.is_empty() {
        bail!("nothing to upgrade: name a --version, or values with --set NAME=VALUE");
    }
    if let Some(version) = &args.version {
        let nf = load(client, &args.function).await?;
        let nf = match nf {
            Some(nf) => nf,
            None => return Err(missing_function(client, &args.function).await),
        };
        let catalog = catalog::load(args.catalog.as_deref())?;
        if let Some(package) = catalog.package(&nf.spec.package, Some(version)) {
            deploy::ensure_package(client, package).await?;
        }
    }
    let values = deploy::parse_values(&args.set)?;
    change(client, &args.function, &args.wait, output, |_, spec| {
        if let Some(version) = &args.version {
            spec.version.clone_from(version);
        }
        spec.values.extend(values.clone());
        Ok(())
    })
    .await
}

/// `gantry rollback`: package, version, values and peers of an earlier revision; number and size stay as they are.
pub async fn rollback(client: &Client, args: &RollbackArgs, output: Output) -> Result<()> {
    let Some(nf) = load(client, &args.function).await? else {
        return Err(missing_function(client, &args.function).await);
    };
    let earlier = nf
        .status
        .history
        .iter()
        .rev()
        .filter(|record| record.revision != nf.status.revision);
    let record = match &args.to {
        Some(revision) => nf.status.history.iter().find(|r| &r.revision == revision),
        None => earlier.clone().next(),
    };
    let Some(record) = record else {
        let known: Vec<&str> = earlier.map(|r| r.revision.as_str()).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        bail!(
            "{} has no such earlier revision; there are: {known}",
            args.function
        );
    };
    let target = record.spec.clone();
    change(client, &args.function, &args.wait, output, |_, spec| {
        spec.package.clone_from(&target.package);
        spec.version.clone_from(&target.version);
        spec.values.clone_from(&target.values);
        spec.peers.clone_from(&target.peers);
        Ok(())
    })
    .await
}

async fn load(client: &Client, name: &str) -> Result<Option<NetworkFunction>> {
    client
        .find(&format!("{}/{name}", client.own(NetworkFunction::PLURAL)))
        .await
}

/// Tries at a write that others' writes get in the way of; each reads the function anew.
const TRIES: u32 = 10;

/// Reads a function, changes its spec, writes it back if nobody else did meanwhile (else again), and waits for the operation.
async fn change(
    client: &Client,
    name: &str,
    wait: &Wait,
    output: Output,
    edit: impl Fn(&NfPackageSpec, &mut NetworkFunctionSpec) -> Result<()>,
) -> Result<()> {
    let path = format!("{}/{name}", client.own(NetworkFunction::PLURAL));
    for attempt in 1.. {
        let Some(nf) = load(client, name).await? else {
            return Err(missing_function(client, name).await);
        };
        let package = package_of(client, &nf.spec).await?;
        let mut wanted = nf.clone();
        edit(&package, &mut wanted.spec)?;
        let new_package = package_of(client, &wanted.spec).await?;
        if let Some(problem) = wanted.spec.problems(&new_package).first() {
            bail!("{name}: {}", problem.message);
        }
        if wanted.spec == nf.spec {
            return output::write_out(&format!("{name} is already as asked\n"));
        }
        match client.replace(&path, &wanted).await {
            Ok(answer) => {
                let generation = answer["metadata"]["generation"].as_i64();
                let generation = generation.context("the API server's answer has no generation")?;
                return operation::finish(client, name, generation, wait, output).await;
            }
            Err(error) if is_status(&error, 409) && attempt < TRIES => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

async fn package_of(client: &Client, spec: &NetworkFunctionSpec) -> Result<NfPackageSpec> {
    let name = format!("{}-{}", spec.package, spec.version);
    let package: Option<NfPackage> = client
        .find(&format!("{}/{name}", Client::own_cluster(NfPackage::PLURAL)))
        .await?;
    Ok(package
        .with_context(|| {
            format!(
                "package {} {} is not deployed; `gantry catalog ls` lists what there is",
                spec.package, spec.version
            )
        })?
        .spec)
}

fn pick_container<'a>(package: &'a NfPackageSpec, name: Option<&str>) -> Result<&'a NfContainer> {
    let names = || {
        package
            .containers
            .iter()
            .map(|c| c.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (name, package.containers.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => bail!(
            "{} has several containers; name one with --container: {}",
            package.package,
            names()
        ),
        (Some(name), all) => all.iter().find(|c| c.name == name).with_context(|| {
            format!(
                "{} has no container `{name}`; it has: {}",
                package.package,
                names()
            )
        }),
    }
}

fn apply_size(container: &NfContainer, wanted: &mut ResourceOverride, args: &ResizeArgs) -> Result<()> {
    if let Some(memory) = args.memory {
        wanted.memory = Some(memory);
    }
    let Some(cpu) = &args.cpu else { return Ok(()) };
    let before = wanted.cpu.clone().unwrap_or_else(|| container.cpu.clone());
    wanted.cpu = Some(match before {
        Cpu::Exclusive { smt, .. } => {
            let count = cpu.parse().with_context(|| {
                format!(
                    "container {} has exclusive CPUs: `{cpu}` should be a whole number",
                    container.name
                )
            })?;
            Cpu::Exclusive { count, smt }
        }
        Cpu::Shared { limit, .. } => {
            let request: MilliCpu = cpu.parse()?;
            Cpu::Shared {
                request,
                limit: args.cpu_limit.or_else(|| limit.map(|limit| limit.max(request))),
            }
        }
    });
    Ok(())
}

/// The Kubernetes patch that resizes a single pod's container.
pub fn pod_resize_patch(container: &str, args: &ResizeArgs) -> serde_json::Value {
    let mut resources = json!({"requests": {}, "limits": {}});
    if let Some(memory) = args.memory {
        resources["requests"]["memory"] = json!(memory);
        resources["limits"]["memory"] = json!(memory);
    }
    if let Some(cpu) = &args.cpu {
        resources["requests"]["cpu"] = json!(cpu);
    }
    if let Some(limit) = args.cpu_limit {
        resources["limits"]["cpu"] = json!(limit);
    }
    json!({"spec": {"containers": [{"name": container, "resources": resources}]}})
}
