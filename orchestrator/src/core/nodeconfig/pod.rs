//! One pod, exactly, as its node is told.

use std::collections::BTreeMap;

use gantry_api::{PodExtras, labels};
use gantry_nodeagent_api::{
    ContainerConfig, ContainerResources, ContainerRole, PodConfig, PodDesired, QosClass, RestartPolicy,
    SessionProbe, TerminationMessage, read_subnets,
};
use gantry_plan::{ContainerPlacement, CpuRequest, Placement};
use gantry_topology::CpuSet;
use k8s_openapi::api::core::v1::{self as k8s, Container, Pod};

use super::super::world::{Key, Work};
use super::super::{group, meta, pods, quarantine, resources};
use super::room::Allowance;
use super::{env, expand, podnames, probe, security, volume};
use crate::kinds::grace_seconds;

/// Reason and message of an event.
pub(super) type Warning = (&'static str, String);

/// The configuration of a pod that its node does not know yet; in words what is missing. What people should know all the same
/// goes to `warnings`.
pub(super) fn config(work: &Work<'_>, pod: &Pod, warnings: &mut Vec<Warning>) -> Result<PodConfig, String> {
    let placement = work
        .plan
        .placements
        .get(meta::uid(&pod.metadata))
        .ok_or("it has no place in the plan yet")?;
    let spec = pod.spec.as_ref().ok_or("it has no spec")?;
    let extras = pods::extras(pod);
    let mut room = Allowance::new(work.limits);
    let mut containers = Vec::new();
    for (container, role) in pods::containers(pod) {
        containers.push(container_config(
            work, pod, container, role, placement, warnings, &mut room,
        )?);
    }
    warnings.extend(missing_pull_secrets(work, pod, spec));
    Ok(PodConfig {
        namespace: meta::namespace(&pod.metadata).to_owned(),
        name: meta::name(&pod.metadata).to_owned(),
        requester: group::requester(&work.objects, meta::namespace(&pod.metadata)).to_owned(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        desired: desired(pod),
        address: pods::address(pod),
        host_network: spec.host_network.unwrap_or(false),
        restart_policy: match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        },
        termination_grace_s: grace(pod),
        numa_nodes: placement.numa_nodes.iter().copied().collect(),
        containers,
        volumes: volume::all(work, pod, &mut room)?,
        security: security::pod(spec)?,
        names: podnames::of(work, pod, spec)?,
        sessions: extras.drain.sessions.map(|s| SessionProbe {
            port: s.port,
            path: s.path,
            metric: s.metric,
        }),
        deadline_ms: deadline_ms(pod),
        qos: qos(pod),
        subnets: read_subnets(&extras.subnets).map_err(|e| format!("annotation {}: {e}", labels::EXTRAS))?,
    })
}

/// Secrets for registries that are named and not there, in the words of Kubernetes.
fn missing_pull_secrets(work: &Work<'_>, pod: &Pod, spec: &k8s::PodSpec) -> Option<Warning> {
    let there = |name: &str| {
        let key = Key::new(meta::namespace(&pod.metadata), name);
        work.objects.secrets.contains_key(&key) || quarantine::has(work, "Secret", &key)
    };
    let named = spec.image_pull_secrets.iter().flatten().map(|s| s.name.as_str());
    let missing: Vec<&str> = named.filter(|name| !there(name)).collect();
    let text = format!(
        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
        missing.join(", ")
    );
    (!missing.is_empty()).then_some(("FailedToRetrieveImagePullSecret", text))
}

/// The configuration of a pod that its node has: only what may change on a live pod changes.
pub(super) fn update(work: &Work<'_>, pod: &Pod, running: &PodConfig, room: &mut Allowance) -> PodConfig {
    let mut config = running.clone();
    config.desired = desired(pod);
    config.termination_grace_s = grace(pod);
    config.deadline_ms = deadline_ms(pod);
    if config.desired != PodDesired::Run {
        return config;
    }
    config.labels = pod.metadata.labels.clone().unwrap_or_default();
    // Files follow their ConfigMap or Secret while it exists.
    if let Ok(mut volumes) = volume::all(work, pod, room) {
        // A claim of the same name that was made since is another one.
        let claims = running.volumes.iter().filter(|(_, v)| v.claim().is_some());
        volumes.extend(claims.map(|(name, claim)| (name.clone(), claim.clone())));
        config.volumes = volumes;
    }
    config.qos = qos(pod);
    // What cannot be read changes nothing.
    if let Ok(subnets) = read_subnets(&pods::extras(pod).subnets) {
        config.subnets = subnets;
    }
    // A configuration of an earlier version has none.
    for target in &mut config.containers {
        if let Some((container, _)) = pods::containers(pod).find(|(c, _)| c.name == target.name) {
            target.ephemeral_storage = resources::ephemeral_storage(container);
        }
    }
    let Some(placement) = work.plan.placements.get(meta::uid(&pod.metadata)) else {
        return config;
    };
    config.numa_nodes = placement.numa_nodes.iter().copied().collect();
    // What the plan does not grant yet is not told: the size stays as it is, limits beyond the request included.
    for target in config.containers.iter_mut().filter(|_| !placement.resize_pending) {
        // An init container is over soon: it keeps the size that it was started with.
        let found = pods::containers(pod)
            .find(|(c, role)| c.name == target.name && *role != ContainerRole::Init)
            .map(|(c, _)| c)
            .zip(of(placement, &target.name));
        if let Some((container, granted)) = found {
            target.resources = sizes(container, granted, false);
            target.memory_request_bytes = resources::memory_request(container);
        }
    }
    config
}

fn desired(pod: &Pod) -> PodDesired {
    if pods::is_stopping(pod) {
        PodDesired::Stop
    } else if pods::is_over(pod) {
        PodDesired::Keep
    } else {
        PodDesired::Run
    }
}

fn grace(pod: &Pod) -> u32 {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let seconds = asked
        .or(pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds))
        .unwrap_or(30);
    u32::try_from(grace_seconds(seconds)).unwrap_or(u32::MAX)
}

/// The API gives every pod one.
fn qos(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("BestEffort") => QosClass::BestEffort,
        _ => QosClass::Burstable,
    }
}

/// Counted from when the pod came to its node.
fn deadline_ms(pod: &Pod) -> Option<u64> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?;
    Some(meta::millis(start).saturating_add(u64::try_from(seconds).ok()?.saturating_mul(1000)))
}

fn of<'a>(placement: &'a Placement, container: &str) -> Option<&'a ContainerPlacement> {
    placement.containers.iter().find(|c| c.name == container)
}

fn sizes(container: &Container, granted: &ContainerPlacement, pending: bool) -> ContainerResources {
    let (cpu_request_milli, cpu_limit_milli) = match granted.cpu {
        CpuRequest::Shared {
            request_milli,
            limit_milli,
        } => (request_milli, limit_milli),
        CpuRequest::Exclusive { count, .. } => (count.saturating_mul(1000), None),
    };
    let granted_bytes: u64 = granted.memory_bytes.values().sum();
    // Without a limit there is none; a limit above the request is the limit; while a resize waits, the old grant is.
    let memory_bytes = match resources::memory_limit(container) {
        None => 0,
        Some(_) if pending => granted_bytes,
        Some(limit) => limit,
    };
    let mut hugepages = BTreeMap::new();
    for (size, amount) in granted.hugepages.values().flatten() {
        *hugepages.entry(*size).or_default() += amount;
    }
    ContainerResources {
        cpus: granted.cpus.clone(),
        cpu_request_milli,
        cpu_limit_milli,
        memory_bytes,
        hugepages,
    }
}

/// An init container runs in the shared pool, within what is granted to the pod as a whole.
fn init_sizes(container: &Container) -> ContainerResources {
    let asked = resources::request(container, &PodExtras::default());
    let (cpu_request_milli, cpu_limit_milli) = match asked.cpu {
        CpuRequest::Shared {
            request_milli,
            limit_milli,
        } => (request_milli, limit_milli),
        CpuRequest::Exclusive { count, .. } => (count.saturating_mul(1000), None),
    };
    ContainerResources {
        cpus: CpuSet::new(),
        cpu_request_milli,
        cpu_limit_milli,
        memory_bytes: resources::memory_limit(container).unwrap_or(0),
        hugepages: asked.hugepages,
    }
}

fn container_config(
    work: &Work<'_>,
    pod: &Pod,
    from: &Container,
    role: ContainerRole,
    placement: &Placement,
    warnings: &mut Vec<Warning>,
    room: &mut Allowance,
) -> Result<ContainerConfig, String> {
    let resources = match of(placement, &from.name) {
        _ if role == ContainerRole::Init => init_sizes(from),
        Some(granted) => sizes(from, granted, placement.resize_pending),
        None => return Err(format!("the plan has no container `{}`", from.name)),
    };
    let env = env::resolve(work, pod, from, room)?;
    let mut expand = |what: &str, list: &Option<Vec<String>>| -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        for text in list.iter().flatten() {
            let word = expand::expand(text, &env.vars)
                .map_err(|e| format!("{what} of container {}: {e}", from.name))?;
            room.take(word.len())?;
            words.push(word);
        }
        Ok(words)
    };
    let (command, args) = (expand("command", &from.command)?, expand("args", &from.args)?);
    let skipped = env.skipped.into_iter();
    warnings.extend(skipped.map(|text| ("InvalidEnvironmentVariableNames", text)));
    let lifecycle = from.lifecycle.as_ref();
    let hook = |h: Option<&k8s::LifecycleHandler>| h.map(|h| probe::hook(h, from)).transpose();
    let readers = |p: &Option<k8s::Probe>| p.as_ref().map(|p| probe::convert(p, from)).transpose();
    Ok(ContainerConfig {
        name: from.name.clone(),
        image: from.image.clone().unwrap_or_default(),
        command,
        args,
        working_dir: from.working_dir.clone().unwrap_or_default(),
        resources,
        memory_request_bytes: resources::memory_request(from),
        ephemeral_storage: resources::ephemeral_storage(from),
        mounts: volume::mounts(from, &env.vars)?,
        security: security::container(pod.spec.as_ref().unwrap_or(&k8s::PodSpec::default()), from)
            .map_err(|e| format!("container {}: {e}", from.name))?,
        open_files: pods::extras(pod).open_files.get(&from.name).copied(),
        readiness: readers(&from.readiness_probe)?,
        liveness: readers(&from.liveness_probe)?,
        startup: readers(&from.startup_probe)?,
        post_start: hook(lifecycle.and_then(|l| l.post_start.as_ref()))?,
        pre_stop: hook(lifecycle.and_then(|l| l.pre_stop.as_ref()))?,
        reload: pods::extras(pod).reload.get(&from.name).map(probe::reload),
        role,
        termination_message: TerminationMessage {
            path: from
                .termination_message_path
                .clone()
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| "/dev/termination-log".to_owned()),
            from_log: from.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        },
        env: env.vars.into_iter().collect(),
    })
}
