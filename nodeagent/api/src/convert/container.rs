//! Configuration: container, volume, probe.

use super::{InvalidMessage, list, optional, parse, port, required};
use crate::{
    ContainerConfig, ContainerResources, ContainerRole, EphemeralStorage, Hook, HttpGet, Mount, Probe,
    ProbeAction, TerminationMessage, proto,
};

impl From<&ContainerConfig> for proto::ContainerConfig {
    fn from(m: &ContainerConfig) -> Self {
        Self {
            name: m.name.clone(),
            image: m.image.clone(),
            command: m.command.clone(),
            args: m.args.clone(),
            env: m
                .env
                .iter()
                .map(|(n, v)| proto::EnvVar {
                    name: n.clone(),
                    value: v.clone(),
                })
                .collect(),
            working_dir: m.working_dir.clone(),
            resources: Some((&m.resources).into()),
            memory_request_bytes: m.memory_request_bytes,
            mounts: m
                .mounts
                .iter()
                .map(|m| proto::Mount {
                    volume: m.volume.clone(),
                    path: m.path.clone(),
                    sub_path: m.sub_path.clone(),
                    read_only: m.read_only,
                })
                .collect(),
            security: Some((&m.security).into()),
            ephemeral_storage: Some(proto::EphemeralStorage {
                request_bytes: m.ephemeral_storage.request_bytes,
                limit_bytes: m.ephemeral_storage.limit_bytes,
            }),
            open_files: m.open_files,
            readiness: m.readiness.as_ref().map(Into::into),
            liveness: m.liveness.as_ref().map(Into::into),
            startup: m.startup.as_ref().map(Into::into),
            role: role(m.role).into(),
            post_start: m.post_start.as_ref().map(Into::into),
            pre_stop: m.pre_stop.as_ref().map(Into::into),
            reload: m.reload.as_ref().map(Into::into),
            termination_message: Some(proto::TerminationMessage {
                path: m.termination_message.path.clone(),
                from_log: m.termination_message.from_log,
            }),
        }
    }
}

fn role(m: ContainerRole) -> proto::ContainerRole {
    match m {
        ContainerRole::Main => proto::ContainerRole::Main,
        ContainerRole::Init => proto::ContainerRole::Init,
        ContainerRole::Sidecar => proto::ContainerRole::Sidecar,
    }
}

impl TryFrom<proto::ContainerConfig> for ContainerConfig {
    type Error = InvalidMessage;

    fn try_from(w: proto::ContainerConfig) -> Result<Self, InvalidMessage> {
        let role = match proto::ContainerRole::try_from(w.role) {
            Ok(proto::ContainerRole::Main) => ContainerRole::Main,
            Ok(proto::ContainerRole::Init) => ContainerRole::Init,
            Ok(proto::ContainerRole::Sidecar) => ContainerRole::Sidecar,
            Err(_) => return Err(InvalidMessage::new("role", "unknown value")),
        };
        let mount = |m: proto::Mount| {
            Ok(Mount {
                volume: m.volume,
                path: m.path,
                sub_path: m.sub_path,
                read_only: m.read_only,
            })
        };
        let storage = w.ephemeral_storage.unwrap_or_default();
        Ok(Self {
            name: w.name,
            image: w.image,
            command: w.command,
            args: w.args,
            env: w.env.into_iter().map(|e| (e.name, e.value)).collect(),
            working_dir: w.working_dir,
            resources: required(
                "resources",
                optional("resources", w.resources, TryInto::try_into)?,
            )?,
            memory_request_bytes: w.memory_request_bytes,
            mounts: list("mounts", w.mounts, mount)?,
            security: w.security.unwrap_or_default().into(),
            ephemeral_storage: EphemeralStorage {
                request_bytes: storage.request_bytes,
                limit_bytes: storage.limit_bytes,
            },
            open_files: w.open_files,
            readiness: optional("readiness", w.readiness, TryInto::try_into)?,
            liveness: optional("liveness", w.liveness, TryInto::try_into)?,
            startup: optional("startup", w.startup, TryInto::try_into)?,
            role,
            post_start: optional("postStart", w.post_start, TryInto::try_into)?,
            pre_stop: optional("preStop", w.pre_stop, TryInto::try_into)?,
            reload: optional("reload", w.reload, TryInto::try_into)?,
            termination_message: w
                .termination_message
                .map_or_else(TerminationMessage::default, |m| TerminationMessage {
                    path: m.path,
                    from_log: m.from_log,
                }),
        })
    }
}

impl From<&ContainerResources> for proto::ContainerResources {
    fn from(m: &ContainerResources) -> Self {
        Self {
            cpus: m.cpus.to_string(),
            cpu_request_milli: m.cpu_request_milli,
            cpu_limit_milli: m.cpu_limit_milli,
            memory_bytes: m.memory_bytes,
            hugepages: m.hugepages.clone(),
        }
    }
}

impl TryFrom<proto::ContainerResources> for ContainerResources {
    type Error = InvalidMessage;

    fn try_from(w: proto::ContainerResources) -> Result<Self, InvalidMessage> {
        Ok(Self {
            cpus: parse("cpus", &w.cpus)?,
            cpu_request_milli: w.cpu_request_milli,
            cpu_limit_milli: w.cpu_limit_milli,
            memory_bytes: w.memory_bytes,
            hugepages: w.hugepages,
        })
    }
}

impl From<&Probe> for proto::Probe {
    fn from(m: &Probe) -> Self {
        use proto::probe::{Action, Exec, TcpSocket};
        let action = match &m.action {
            ProbeAction::HttpGet(get) => Action::HttpGet(get.into()),
            ProbeAction::TcpSocket { port } => Action::TcpSocket(TcpSocket { port: (*port).into() }),
            ProbeAction::Exec { command } => Action::Exec(Exec {
                command: command.clone(),
            }),
        };
        Self {
            action: Some(action),
            initial_delay_ms: m.initial_delay_ms,
            period_ms: m.period_ms,
            timeout_ms: m.timeout_ms,
            failure_threshold: m.failure_threshold,
            success_threshold: m.success_threshold,
            termination_grace_s: m.termination_grace_s,
        }
    }
}

impl TryFrom<proto::Probe> for Probe {
    type Error = InvalidMessage;

    fn try_from(w: proto::Probe) -> Result<Self, InvalidMessage> {
        use proto::probe::Action;
        let action = match required("action", w.action)? {
            Action::HttpGet(a) => ProbeAction::HttpGet(a.try_into()?),
            Action::TcpSocket(a) => ProbeAction::TcpSocket {
                port: port("port", a.port)?,
            },
            Action::Exec(a) => ProbeAction::Exec { command: a.command },
        };
        Ok(Self {
            action,
            initial_delay_ms: w.initial_delay_ms,
            period_ms: w.period_ms,
            timeout_ms: w.timeout_ms,
            failure_threshold: w.failure_threshold,
            success_threshold: w.success_threshold,
            termination_grace_s: w.termination_grace_s,
        })
    }
}

impl From<&Hook> for proto::Hook {
    fn from(m: &Hook) -> Self {
        use proto::hook::Action;
        use proto::probe::Exec;
        let action = match m {
            Hook::HttpGet(get) => Action::HttpGet(get.into()),
            Hook::Exec { command } => Action::Exec(Exec {
                command: command.clone(),
            }),
            Hook::Sleep { seconds } => Action::SleepS(*seconds),
            Hook::Signal { signal } => Action::Signal(*signal),
        };
        Self { action: Some(action) }
    }
}

impl TryFrom<proto::Hook> for Hook {
    type Error = InvalidMessage;

    fn try_from(w: proto::Hook) -> Result<Self, InvalidMessage> {
        use proto::hook::Action;
        Ok(match required("action", w.action)? {
            Action::HttpGet(a) => Self::HttpGet(a.try_into()?),
            Action::Exec(a) => Self::Exec { command: a.command },
            Action::SleepS(seconds) => Self::Sleep { seconds },
            Action::Signal(signal) => Self::Signal { signal },
        })
    }
}

impl From<&HttpGet> for proto::probe::HttpGet {
    fn from(m: &HttpGet) -> Self {
        let header = |(name, value): &(String, String)| proto::probe::Header {
            name: name.clone(),
            value: value.clone(),
        };
        Self {
            port: m.port.into(),
            path: m.path.clone(),
            headers: m.headers.iter().map(header).collect(),
        }
    }
}

impl TryFrom<proto::probe::HttpGet> for HttpGet {
    type Error = InvalidMessage;

    fn try_from(w: proto::probe::HttpGet) -> Result<Self, InvalidMessage> {
        Ok(Self {
            port: port("port", w.port)?,
            path: w.path,
            headers: w.headers.into_iter().map(|h| (h.name, h.value)).collect(),
        })
    }
}
