//! Which pods of a configuration make sense. An agent leaves out those that do not, before anything is touched, and all
//! others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Component, Path};

use gantry_topology::CpuSet;

use crate::{
    ClaimId, ContainerConfig, Hook, NodeConfig, PodConfig, PodDesired, PodUid, ProbeAction, Volume,
    VolumeFile,
};

mod subnets;

pub use subnets::{MAX_POD_SUBNETS, check_subnets, read_subnets};

/// Largest user or group id, as in Kubernetes. The kernel has ids of 32 bits, and takes the last one for "leave it as it is": a
/// process that is to become it stays root.
pub const MAX_ID: u32 = 2_147_483_647;
/// The last signal of Linux.
const MAX_SIGNAL: u32 = 64;

/// Longest path of a file within a volume, in bytes: with the pod's directory in front it is still one for the kernel.
const MAX_FILE_PATH: usize = 1024;

impl NodeConfig {
    /// What is wrong with pods, by uid: names that become paths, addresses, subnets, references, and CPUs, none of which has two
    /// owners among the pods that run. Where two want the same, the one that `holds` something on the node has it, else
    /// the first.
    pub fn faults(&self, holds: impl Fn(&PodUid) -> bool) -> BTreeMap<PodUid, String> {
        let mut claims = Claims {
            cpus: self.shared_cpus.clone(),
            addresses: BTreeSet::new(),
        };
        let mut order: Vec<(&PodUid, &PodConfig)> = self.pods.iter().collect();
        order.sort_by_key(|(uid, _)| !holds(uid));
        order
            .into_iter()
            .filter_map(|(uid, pod)| Some((uid.clone(), self.fault(uid, pod, &mut claims).err()?)))
            .collect()
    }

    fn fault(&self, uid: &PodUid, pod: &PodConfig, claims: &mut Claims) -> Result<(), String> {
        if !is_label(uid) {
            return Err("the uid must be letters, digits, `-`, `_` or `.`, 1 to 63 of them".to_owned());
        }
        check_pod(pod)?;
        subnets::check_pod(pod, self.network.as_ref())?;
        if pod.desired != PodDesired::Run {
            return Ok(());
        }
        self.check_claims(pod)?;
        self.check_network(pod)?;
        claims.claim(pod)
    }

    /// Whoever has a claim that the node does not keep would lose it.
    fn check_claims(&self, pod: &PodConfig) -> Result<(), String> {
        let listed = |id: &ClaimId| self.claims.as_ref().is_some_and(|claims| claims.contains_key(id));
        match pod.claims().find(|id| !listed(id)) {
            Some(id) => Err(format!("the node has no claim `{id}`")),
            None => Ok(()),
        }
    }

    fn check_network(&self, pod: &PodConfig) -> Result<(), String> {
        match (&self.network, pod.address) {
            _ if pod.host_network => Ok(()),
            (None, _) => Err("it needs a network, and the node has none yet".to_owned()),
            (Some(_), None) => Err("it has no address".to_owned()),
            (Some(network), Some(address))
                if network.pod_cidr.contains(&address) && address != network.gateway =>
            {
                Ok(())
            }
            (Some(network), Some(address)) => Err(format!(
                "address {address} is none of the node's pod network {}",
                network.pod_cidr
            )),
        }
    }
}

/// What the pods looked at so far have for themselves.
struct Claims {
    cpus: CpuSet,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Claims {
    /// All that the pod needs, or nothing.
    fn claim(&mut self, pod: &PodConfig) -> Result<(), String> {
        // Pods on the host's network share the host's address.
        let address = pod.address.filter(|_| !pod.host_network);
        if let Some(address) = address.filter(|a| self.addresses.contains(a)) {
            return Err(format!("the address {address} belongs to another pod too"));
        }
        let mut cpus = self.cpus.clone();
        for container in &pod.containers {
            let own = &container.resources.cpus;
            if !cpus.is_disjoint(own) {
                let twice = cpus.intersection(own);
                return Err(format!(
                    "container {}: CPUs {twice} have another owner",
                    container.name
                ));
            }
            cpus = cpus.union(own);
        }
        self.cpus = cpus;
        self.addresses.extend(address);
        Ok(())
    }
}

fn check_pod(pod: &PodConfig) -> Result<(), String> {
    if !is_file_name(&pod.name) || pod.name.len() > 253 {
        return Err(format!("`{}` is no name", pod.name));
    }
    if pod.containers.is_empty() {
        return Err("it has no container".to_owned());
    }
    if pod.host_network && pod.security.own_ids {
        return Err("it has ids of its own, and so cannot have the host's network".to_owned());
    }
    let groups = &pod.security.supplemental_groups;
    check_ids(groups.iter().chain(&pod.security.fs_group))?;
    if pod.sessions.as_ref().is_some_and(|sessions| sessions.port == 0) {
        return Err("its sessions are asked for at port 0, which is none".to_owned());
    }
    for (name, volume) in &pod.volumes {
        if !is_label(name) {
            return Err(format!("`{name}` is no volume name"));
        }
        match volume {
            Volume::Files(files) | Volume::SecretFiles(files) => {
                check_files(files).map_err(|e| format!("volume {name}: {e}"))?;
            }
            Volume::HostPath { path, .. } if !is_clean_absolute(path) => {
                return Err(format!("volume {name}: `{path}` is no absolute path"));
            }
            Volume::Claim { id, .. } if !is_label(id) => {
                return Err(format!("volume {name}: `{id}` is no claim"));
            }
            Volume::HostPath { .. }
            | Volume::Scratch { .. }
            | Volume::EmptyDir { .. }
            | Volume::Claim { .. } => {}
        }
    }
    let mut names = BTreeSet::new();
    for container in &pod.containers {
        if !is_container_name(&container.name) || !names.insert(&container.name) {
            return Err(format!(
                "`{}` is no container name (lower-case letters, digits, `-`, 1 to 63 of them), or is there twice",
                container.name
            ));
        }
        check_container(pod, container).map_err(|e| format!("container {}: {e}", container.name))?;
    }
    Ok(())
}

fn check_ids<'a>(mut ids: impl Iterator<Item = &'a u32>) -> Result<(), String> {
    match ids.find(|id| **id > MAX_ID) {
        Some(id) => Err(format!("{id} is no user or group: ids are 0 to {MAX_ID}")),
        None => Ok(()),
    }
}

/// Ports that the node asks a container at.
fn asked_ports(container: &ContainerConfig) -> impl Iterator<Item = u16> {
    let probes = [&container.readiness, &container.liveness, &container.startup];
    let probed = probes
        .into_iter()
        .flatten()
        .filter_map(|probe| match &probe.action {
            ProbeAction::HttpGet(get) => Some(get.port),
            ProbeAction::TcpSocket { port } => Some(*port),
            ProbeAction::Exec { .. } => None,
        });
    let hooks = [&container.post_start, &container.pre_stop, &container.reload];
    let hooked = hooks.into_iter().flatten().filter_map(|hook| match hook {
        Hook::HttpGet(get) => Some(get.port),
        Hook::Exec { .. } | Hook::Sleep { .. } | Hook::Signal { .. } => None,
    });
    probed.chain(hooked)
}

fn check_container(pod: &PodConfig, container: &ContainerConfig) -> Result<(), String> {
    let security = &container.security;
    check_ids(security.user.iter().chain(&security.group))?;
    if asked_ports(container).any(|port| port == 0) {
        return Err("a probe or a hook asks port 0, which is none".to_owned());
    }
    if let Some(Hook::Signal { signal }) = &container.reload
        && !(1..=MAX_SIGNAL).contains(signal)
    {
        return Err(format!("{signal} is no signal: 1 to {MAX_SIGNAL}"));
    }
    for mount in &container.mounts {
        if !pod.volumes.contains_key(&mount.volume) {
            return Err(format!("there is no volume `{}`", mount.volume));
        }
        if !is_clean_absolute(&mount.path) {
            return Err(format!("mount path `{}` is no absolute path", mount.path));
        }
        if !container.security.privileged && is_system_path(Path::new(&mount.path)) {
            return Err(format!(
                "mount path `{}` would cover what /proc and /sys hide",
                mount.path
            ));
        }
        if let Some(sub_path) = &mount.sub_path
            && !is_sub_path(sub_path)
        {
            // The path itself may have a secret in it.
            return Err(format!(
                "the sub path for {} must be relative, without `..`",
                mount.path
            ));
        }
    }
    let last_words = container.termination_message.path.as_str();
    if !last_words.is_empty() && (!is_clean_absolute(last_words) || is_system_path(Path::new(last_words))) {
        return Err(format!("`{last_words}` is no path for a termination message"));
    }
    if let Some((name, _)) = container
        .env
        .iter()
        .find(|(n, v)| n.is_empty() || n.contains(['=', '\0']) || v.contains('\0'))
    {
        return Err(format!("`{name}` is no environment variable"));
    }
    Ok(())
}

/// Each file has a place of its own within the volume, and none is a directory of another.
fn check_files(files: &BTreeMap<String, VolumeFile>) -> Result<(), String> {
    for (path, file) in files {
        let clean = is_sub_path(path) && !path.ends_with('/') && !path.starts_with("..");
        if !clean || !path.split('/').all(is_file_name) || path.len() > MAX_FILE_PATH {
            return Err(format!("`{path}` is no file within it"));
        }
        if file.mode > 0o777 {
            return Err(format!("`{path}` cannot have mode {:o}", file.mode));
        }
        let mut above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
        if let Some(other) = above.find(|above| files.contains_key(*above)) {
            return Err(format!(
                "`{other}` is a file, and a directory because of `{path}`"
            ));
        }
    }
    Ok(())
}

/// Whether a container may have this name: lower-case letters, digits and `-`, 1 to 63 of them.
pub fn is_container_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether this can be a part of a volume: a relative path without `..`, not empty.
pub fn is_sub_path(text: &str) -> bool {
    !text.is_empty()
        && Path::new(text)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Whether an absolute path is `/proc` or `/sys`, or below: what is masked or read-only there must not be covered.
pub fn is_system_path(path: &Path) -> bool {
    ["/proc", "/sys"].iter().any(|system| path.starts_with(system))
}

/// Whether a claim may have this id: it becomes a directory's name.
pub fn is_claim_id(text: &str) -> bool {
    is_label(text)
}

/// One path component out of letters, digits, `-`, `_`, `.`; not `.` or `..`.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().any(|b| b != b'.')
}

fn is_file_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.contains(['/', '\0']) && text != "." && text != ".."
}

fn is_clean_absolute(text: &str) -> bool {
    text.starts_with('/')
        && !text.contains('\0')
        && Path::new(text)
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests;
