//! How much room a pod takes in its node's configuration.

use super::{ContainerConfig, Hook, HttpGet, PodConfig, Probe, ProbeAction, Seccomp, Volume};

/// What a text, a number or a list takes beside its content, in a message and in the agent's ledger.
const EACH: usize = 24;
/// All numbers and flags of a pod, or of a container.
const FIXED: usize = 512;

impl PodConfig {
    /// Bytes that it takes in a message, rounded up.
    pub fn size_bytes(&self) -> usize {
        let names = &self.names;
        let lists = [&names.searches, &names.options].into_iter().flatten();
        let aliases = names.aliases.iter().flat_map(|alias| &alias.names);
        let own = [&self.namespace, &self.name, &names.hostname, &names.fqdn];
        let sessions = self.sessions.iter().flat_map(|s| [&s.path, &s.metric]);
        let numbers = self.numa_nodes.len() + self.security.supplemental_groups.len();
        let addresses = names.aliases.len() + names.nameservers.len() + self.subnets.len();
        FIXED
            + texts(own)
            + texts(sessions)
            + texts(self.labels.iter().flat_map(pair))
            + texts(self.security.sysctls.iter().flat_map(pair))
            + texts(lists)
            + texts(aliases)
            // An IPv6 address has up to 45 characters.
            + addresses * (EACH + 45)
            + numbers * EACH
            + self.containers.iter().map(container).sum::<usize>()
            + self.volumes.iter().map(|(name, v)| texts([name]) + volume(v)).sum::<usize>()
    }
}

fn pair<'a>((key, value): (&'a String, &'a String)) -> [&'a String; 2] {
    [key, value]
}

fn texts<'a>(all: impl IntoIterator<Item = &'a String>) -> usize {
    all.into_iter().map(|text| EACH + text.len()).sum()
}

fn container(of: &ContainerConfig) -> usize {
    let security = &of.security;
    let profile = match &security.seccomp {
        Seccomp::Localhost(path) => Some(path),
        Seccomp::RuntimeDefault | Seccomp::Unconfined => None,
    };
    let own = [&of.name, &of.image, &of.working_dir, &of.termination_message.path];
    let words = of.command.iter().chain(&of.args);
    let mounts = of
        .mounts
        .iter()
        .flat_map(|m| [&m.volume, &m.path].into_iter().chain(&m.sub_path));
    let capabilities = security.capabilities.iter().chain(&security.root_capabilities);
    let probes = [&of.readiness, &of.liveness, &of.startup].into_iter().flatten();
    let hooks = [&of.post_start, &of.pre_stop, &of.reload].into_iter().flatten();
    FIXED
        + texts(own)
        + texts(words)
        + texts(of.env.iter().flat_map(|(name, value)| [name, value]))
        + texts(mounts)
        + of.mounts.len() * EACH
        + texts(capabilities)
        + texts(security.apparmor_profile.iter().chain(profile))
        + of.resources.cpus.to_string().len()
        + of.resources.hugepages.len() * 2 * EACH
        + probes.map(probe).sum::<usize>()
        + hooks.map(hook).sum::<usize>()
}

fn probe(of: &Probe) -> usize {
    FIXED
        + match &of.action {
            ProbeAction::HttpGet(get) => http_get(get),
            ProbeAction::Exec { command } => texts(command),
            ProbeAction::TcpSocket { .. } => 0,
        }
}

fn hook(of: &Hook) -> usize {
    EACH + match of {
        Hook::HttpGet(get) => http_get(get),
        Hook::Exec { command } => texts(command),
        Hook::Sleep { .. } | Hook::Signal { .. } => 0,
    }
}

fn http_get(of: &HttpGet) -> usize {
    let headers = of.headers.iter().flat_map(|(name, value)| [name, value]);
    texts([&of.path]) + texts(headers) + of.headers.len() * EACH
}

fn volume(of: &Volume) -> usize {
    let files = of.files().into_iter().flatten();
    let files = files
        .map(|(path, file)| texts([path]) + file.data.len() + EACH)
        .sum::<usize>();
    match of {
        Volume::HostPath { path, .. } => EACH + texts([path]),
        Volume::Claim { id, .. } => EACH + texts([id]),
        Volume::Files(_) | Volume::SecretFiles(_) | Volume::Scratch { .. } | Volume::EmptyDir { .. } => {
            EACH + files
        }
    }
}
