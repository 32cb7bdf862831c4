//! `NfPackage`: one network function at one version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::drain::metrics_path;
use crate::{Drain, Exec, Interface, Need, NfContainer, NfDns, Quantity, TemplateSyntax};

/// A network function at one version: what it runs, what it offers and needs, how it is resized and drained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfPackageSpec {
    /// Package name, for example `pcscf`. In a descriptor file it comes from the metadata.
    #[serde(default)]
    pub package: String,
    /// Version, `major.minor.patch`. In a descriptor file it comes from the metadata.
    #[serde(default)]
    pub version: String,
    /// Which core it belongs to.
    pub family: Family,
    /// The role as 3GPP names it, for example `P-CSCF`.
    pub role: String,
    /// The program that plays the role, for example `kamailio`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// What it carries.
    pub plane: Plane,
    /// One line for `gantry catalog ls`.
    #[serde(default)]
    pub description: String,
    /// Defaults of the template values; a NetworkFunction may override any of these and no other.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// Containers that run to their end before the others start, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<NfContainer>,
    /// Containers, in start order.
    pub containers: Vec<NfContainer>,
    /// The level of Kubernetes' Pod Security Standards that its pods need.
    #[serde(default)]
    pub pod_security: PodSecurityLevel,
    /// Kernel parameters of its pods' network namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Directories that each instance keeps, whatever happens to its pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<NfVolume>,
    /// Connection points.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// True: no virtual address; who talks to it chooses an instance by itself, by DNS or from the list of instances.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Other functions that it talks to; two may need each other.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Whom its pods ask for names; the node, which knows all services, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<NfDns>,
    /// True: the files of its instances may name all functions of its service, as `functions`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sees_service: bool,
    /// Configuration files from templates.
    #[serde(default)]
    pub config: Vec<ConfigFile>,
    /// What is done in a running container when files of its instance were replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reload: Vec<Reload>,
    /// Files from Secrets: keys and passwords, which stand in no template and no argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretFile>,
    /// How tags are marked in the templates. A descriptor file that says nothing means `angle`; an object of the API without
    /// it is older than the choice, and means `jinja`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_syntax: Option<TemplateSyntax>,
    /// Template texts by name; filled from files beside the descriptor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, String>,
    /// How it takes a change of size.
    #[serde(default)]
    pub resize: Resize,
    /// How many instances it may have.
    #[serde(default)]
    pub scale: ScaleLimits,
    /// How it lets go of its work.
    #[serde(default)]
    pub drain: Drain,
    /// Where it tells what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// How it changes version.
    #[serde(default)]
    pub upgrade: Upgrade,
}

/// A page of each instance, as Prometheus text: `gantry top` asks for it, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Port on the pod.
    pub port: u16,
    /// Path.
    #[serde(default = "metrics_path")]
    pub path: String,
    /// The metric that counts what is there now: dialogs, calls, devices. Samples are summed, here as below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<String>,
    /// The metric that counts up what it was asked to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<String>,
}

/// Which core a function belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// 4G core.
    Epc,
    /// IP Multimedia Subsystem.
    Ims,
    /// 5G core.
    #[serde(rename = "5gc")]
    FiveGc,
    /// Load generators, DNS, databases.
    #[default]
    Support,
}

/// What a function carries; in the order in which planes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Control messages.
    #[default]
    Signalling,
    /// RTP.
    Media,
    /// User packets.
    Data,
}

impl Plane {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Signalling, Self::Media, Self::Data];

    /// As descriptors and tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signalling => "signalling",
            Self::Media => "media",
            Self::Data => "data",
        }
    }
}

/// A configuration file from a template (minijinja; `values`, `peers`, `self`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigFile {
    /// File beside the descriptor.
    pub template: String,
    /// Absolute path in every container.
    pub path: String,
    /// True: each instance has its own, in which templates name `self.index`, `self.address` and the like, and the instances of
    /// peers. When those change it is replaced at once and as a whole, and `reload` follows: no new revision. Its directory holds
    /// nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub instance: bool,
}

impl ConfigFile {
    /// The directory that it is in.
    pub fn directory(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(_, name)| name)
    }

    /// Its key in a ConfigMap: the path without slashes.
    pub fn key(&self) -> String {
        self.path.trim_start_matches('/').replace('/', "-")
    }
}

/// What is done in a container when files of its instance were replaced; exactly one of the two ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reload {
    /// Name of the container.
    pub container: String,
    /// A signal to its first process, for example `SIGHUP`. One that comes before the program waits for it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<ReloadSignal>,
    /// A command in it, which ends with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
}

/// Signals that programs take as the word to read their files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReloadSignal {
    /// Hang up.
    #[serde(rename = "SIGHUP")]
    Hup,
    /// The first that is a program's own.
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// The second.
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

/// A directory of an instance on the node's disk: kept when its pod is replaced, removed with the function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfVolume {
    /// Name.
    pub name: String,
    /// Absolute path in every container.
    pub path: String,
    /// How much it may hold.
    pub size: Quantity,
}

/// Levels of Kubernetes' Pod Security Standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodSecurityLevel {
    /// What every namespace takes.
    #[default]
    Restricted,
    /// Some of what containers do by default.
    Baseline,
    /// Anything, for example `NET_ADMIN`.
    Privileged,
}

/// A file from a Secret. Its pods wait until that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretFile {
    /// Name of the Secret, in the function's namespace.
    pub secret: String,
    /// Key within.
    pub key: String,
    /// Absolute path in every container.
    pub path: String,
    /// A need (its name under `needs`) that the file is for: where that is left out, so is the file. Always if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

impl NfPackageSpec {
    /// The files from Secrets that a function with these peers has.
    pub fn secrets_with<'a>(
        &'a self,
        peers: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a SecretFile> {
        let wired = |file: &&SecretFile| file.peer.as_ref().is_none_or(|need| peers.contains_key(need));
        self.secrets.iter().filter(wired)
    }
}

/// How a function takes a change of size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resize {
    /// CPU.
    #[serde(default)]
    pub cpu: ResizeClass,
    /// Memory.
    #[serde(default)]
    pub memory: ResizeClass,
}

/// What a change of size needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeClass {
    /// Nothing: the cgroup changes.
    #[default]
    Elastic,
    /// The function is told and answers.
    Cooperative,
    /// A new instance of the new size, and a drain.
    Fixed,
}

/// Bounds on the number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleLimits {
    /// Fewest.
    #[serde(default)]
    pub min: u32,
    /// Most.
    #[serde(default = "default_max")]
    pub max: u32,
}

fn default_max() -> u32 {
    100
}

impl Default for ScaleLimits {
    fn default() -> Self {
        Self {
            min: 0,
            max: default_max(),
        }
    }
}

/// How a function changes version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrade {
    /// The way.
    #[serde(default)]
    pub strategy: UpgradeStrategy,
}

/// The way of an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeStrategy {
    /// New instance first, then the old one drains.
    #[default]
    Surge,
    /// The old one goes first.
    Replace,
}
