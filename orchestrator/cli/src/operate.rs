//! Changes of a running network function: scale, resize, upgrade, rollback. Each writes the wanted spec and lets the
//! orchestrator make the operation.

use anyhow::{Context, Result, bail};
use gantry_api::{NetworkFunction, NetworkFunctionSpec};
use gantry_catalog::{Cpu, MilliCpu, NfContainer, NfPackageSpec, ResourceOverride};
use serde_json::json;

use crate::args::{Output, ResizeArgs, RollbackArgs, Room, ScaleArgs, UpgradeArgs, Wait};
use crate::client::{Client, is_status, missing_function};
use crate::waiting::{Change, finish};
use crate::write::{TRIES, create_package, find_package, missing_packages};
use crate::{catalog, deploy, output, plan, pod_resize};

/// How a change is made: whether it needs room at once, how long it is waited for, how it is told.
struct Manner<'a> {
    room: &'a Room,
    wait: &'a Wait,
    output: Output,
}

/// `gantry scale`.
pub async fn scale(client: &Client, args: &ScaleArgs, output: Output) -> Result<()> {
    let manner = Manner {
        room: &args.room,
        wait: &args.wait,
        output,
    };
    change(client, &args.function, &manner, |_, spec| {
        spec.replicas = args.replicas;
        Ok(())
    })
    .await
}

/// `gantry resize`.
pub async fn resize(client: &Client, args: &ResizeArgs, output: Output) -> Result<()> {
    if load(client, &args.name).await?.is_none() {
        return pod_resize::resize(client, args, output).await;
    }
    let manner = Manner {
        room: &args.room,
        wait: &args.wait,
        output,
    };
    change(client, &args.name, &manner, |package, spec| {
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
        let package = catalog.package(&nf.spec.package, Some(version));
        for package in missing_packages(client, package.as_slice()).await? {
            create_package(client, package).await?;
        }
    }
    let manner = Manner {
        room: &args.room,
        wait: &args.wait,
        output,
    };
    let values = deploy::parse_values(&args.set)?;
    change(client, &args.function, &manner, |_, spec| {
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
    let manner = Manner {
        room: &args.room,
        wait: &args.wait,
        output,
    };
    change(client, &args.function, &manner, |_, spec| {
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

/// Reads a function, changes its spec, writes it back if nobody else did meanwhile (else again), and waits for the operation.
async fn change(
    client: &Client,
    name: &str,
    manner: &Manner<'_>,
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
            let value = json!({"function": name, "message": "already as asked"});
            return output::print(manner.output, &value, || format!("{name} is already as asked\n"));
        }
        if !manner.room.queue && needs_room(&nf.spec, &wanted.spec) {
            plan::ensure_fits(client, &[json!(wanted)], &[]).await?;
        }
        match client.replace(&path, &wanted).await {
            Ok(answer) => {
                return finish(client, &[Change::of(&answer)?], manner.wait, manner.output).await;
            }
            Err(error) if is_status(&error, 409) && attempt < TRIES => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

/// Fewer instances always fit.
fn needs_room(before: &NetworkFunctionSpec, after: &NetworkFunctionSpec) -> bool {
    let mut fewer = before.clone();
    fewer.replicas = fewer.replicas.min(after.replicas);
    *after != fewer
}

async fn package_of(client: &Client, spec: &NetworkFunctionSpec) -> Result<NfPackageSpec> {
    let package = find_package(client, &spec.package, &spec.version).await?;
    package.with_context(|| {
        format!(
            "package {} {} is not deployed; `gantry catalog ls` lists what there is",
            spec.package, spec.version
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fewer_instances_need_no_room() {
        let before = NetworkFunctionSpec {
            replicas: 3,
            ..NetworkFunctionSpec::default()
        };
        let change = |replicas: u32, version: &str| {
            let after = NetworkFunctionSpec {
                replicas,
                version: version.to_owned(),
                ..before.clone()
            };
            needs_room(&before, &after)
        };
        assert!(!change(2, ""));
        assert!(change(4, ""));
        assert!(change(2, "2.0.0"));
    }
}
