//! Status and hello.

use gantry_topology::{Cpu, NumaNode, Topology};

use super::{InvalidMessage, list, map, optional, parse, parse_opt, required};
use crate::{
    ContainerStatus, EndReason, Generation, Hello, NetworkCounters, NodeStatus, NodeStorage, PodPhase,
    PodReason, PodStatus, Readiness, RunEnd, ServiceFault, ServiceFaultReason, Trouble, WaitingReason, proto,
};

impl From<&Hello> for proto::Hello {
    fn from(m: &Hello) -> Self {
        Self {
            node: m.node.clone(),
            boot_id: m.boot_id.clone(),
            agent_version: m.agent_version.clone(),
            kernel_version: m.kernel_version.clone(),
            address: m.address.to_string(),
            topology: Some((&m.topology).into()),
            reserved: m.reserved.to_string(),
            reserved_memory_bytes: m.reserved_memory_bytes,
            storage: Some(proto::NodeStorage {
                bytes: m.storage.bytes,
                reserved_bytes: m.storage.reserved_bytes,
            }),
            generation: m.generation.0,
            cluster: m.cluster.clone(),
        }
    }
}

impl TryFrom<proto::Hello> for Hello {
    type Error = InvalidMessage;

    fn try_from(w: proto::Hello) -> Result<Self, InvalidMessage> {
        if w.node.is_empty() {
            return Err(InvalidMessage::new("node", "missing"));
        }
        let storage = w.storage.unwrap_or_default();
        Ok(Self {
            node: w.node,
            boot_id: w.boot_id,
            agent_version: w.agent_version,
            kernel_version: w.kernel_version,
            address: parse("address", &w.address)?,
            topology: required("topology", w.topology)?.into(),
            reserved: parse("reserved", &w.reserved)?,
            reserved_memory_bytes: w.reserved_memory_bytes,
            storage: NodeStorage {
                bytes: storage.bytes,
                reserved_bytes: storage.reserved_bytes,
            },
            generation: Generation(w.generation),
            cluster: w.cluster,
        })
    }
}

impl From<&Topology> for proto::Topology {
    fn from(m: &Topology) -> Self {
        Self {
            cpus: m
                .cpus
                .iter()
                .map(|c| proto::Cpu {
                    id: c.id,
                    core: c.core,
                    l3: c.l3,
                    numa: c.numa,
                    socket: c.socket,
                })
                .collect(),
            numa_nodes: m
                .numa_nodes
                .iter()
                .map(|n| proto::NumaNode {
                    id: n.id,
                    memory_bytes: n.memory_bytes,
                    hugepages: n.hugepages.clone(),
                    distances: n.distances.clone(),
                })
                .collect(),
        }
    }
}

impl From<proto::Topology> for Topology {
    fn from(w: proto::Topology) -> Self {
        Self {
            cpus: w
                .cpus
                .into_iter()
                .map(|c| Cpu {
                    id: c.id,
                    core: c.core,
                    l3: c.l3,
                    numa: c.numa,
                    socket: c.socket,
                })
                .collect(),
            numa_nodes: w
                .numa_nodes
                .into_iter()
                .map(|n| NumaNode {
                    id: n.id,
                    memory_bytes: n.memory_bytes,
                    hugepages: n.hugepages,
                    distances: n.distances,
                })
                .collect(),
        }
    }
}

impl From<&NodeStatus> for proto::NodeStatus {
    fn from(m: &NodeStatus) -> Self {
        Self {
            accepted: m.accepted.0,
            applied: m.applied.0,
            served: m.served.0,
            pods: m
                .pods
                .iter()
                .map(|(uid, pod)| (uid.clone(), pod.into()))
                .collect(),
            network: Some(proto::NetworkCounters {
                packets: m.network.packets,
                drops: m.network.drops.clone(),
                new_flows: m.network.new_flows.clone(),
            }),
            network_message: m.network_message.clone(),
            disk_pressure: m.disk_pressure.clone(),
            services: m
                .services
                .iter()
                .map(|(name, fault)| (name.clone(), fault.into()))
                .collect(),
            full_claims: m.full_claims.clone(),
        }
    }
}

impl From<&ServiceFault> for proto::ServiceFault {
    fn from(m: &ServiceFault) -> Self {
        Self {
            reason: match m.reason {
                ServiceFaultReason::PortConflict => proto::ServiceFaultReason::PortConflict,
                ServiceFaultReason::SctpPortChange => proto::ServiceFaultReason::SctpPortChange,
                ServiceFaultReason::TablesFull => proto::ServiceFaultReason::TablesFull,
            }
            .into(),
            message: m.message.clone(),
        }
    }
}

impl TryFrom<proto::ServiceFault> for ServiceFault {
    type Error = InvalidMessage;

    fn try_from(w: proto::ServiceFault) -> Result<Self, InvalidMessage> {
        let reason = match w.reason() {
            proto::ServiceFaultReason::PortConflict => ServiceFaultReason::PortConflict,
            proto::ServiceFaultReason::SctpPortChange => ServiceFaultReason::SctpPortChange,
            proto::ServiceFaultReason::TablesFull => ServiceFaultReason::TablesFull,
            proto::ServiceFaultReason::Unspecified => {
                return Err(InvalidMessage::new("reason", "unknown value"));
            }
        };
        Ok(Self {
            reason,
            message: w.message,
        })
    }
}

impl TryFrom<proto::NodeStatus> for NodeStatus {
    type Error = InvalidMessage;

    fn try_from(w: proto::NodeStatus) -> Result<Self, InvalidMessage> {
        let network = w.network.unwrap_or_default();
        Ok(Self {
            accepted: Generation(w.accepted),
            applied: Generation(w.applied),
            served: Generation(w.served),
            pods: map("pods", w.pods, TryInto::try_into)?,
            network: NetworkCounters {
                packets: network.packets,
                drops: network.drops,
                new_flows: network.new_flows,
            },
            network_message: w.network_message,
            disk_pressure: w.disk_pressure,
            services: map("services", w.services, TryInto::try_into)?,
            full_claims: w.full_claims,
        })
    }
}

impl From<&PodStatus> for proto::PodStatus {
    fn from(m: &PodStatus) -> Self {
        Self {
            phase: match m.phase {
                PodPhase::Pending => proto::PodPhase::Pending,
                PodPhase::Running => proto::PodPhase::Running,
                PodPhase::Stopping => proto::PodPhase::Stopping,
                PodPhase::Succeeded => proto::PodPhase::Succeeded,
                PodPhase::Failed => proto::PodPhase::Failed,
            }
            .into(),
            ready: m.ready,
            cpus: m.cpus.to_string(),
            memory_bytes: m.memory_bytes,
            address: m.address.map(|a| a.to_string()),
            started_at_ms: m.started_at_ms,
            containers: m.containers.iter().map(Into::into).collect(),
            sessions: m.sessions,
            message: m.message.clone(),
            reason: match m.reason {
                None => proto::PodReason::Unspecified,
                Some(PodReason::DeadlineExceeded) => proto::PodReason::DeadlineExceeded,
                Some(PodReason::Evicted) => proto::PodReason::Evicted,
            }
            .into(),
            troubles: m
                .troubles
                .iter()
                .map(|(trouble, message)| proto::PodTrouble {
                    trouble: wire(*trouble).into(),
                    message: message.clone(),
                })
                .collect(),
        }
    }
}

fn wire(trouble: Trouble) -> proto::Trouble {
    match trouble {
        Trouble::PidsLimit => proto::Trouble::PidsLimit,
        Trouble::LogRateLimit => proto::Trouble::LogRateLimit,
        Trouble::DnsRateLimit => proto::Trouble::DnsRateLimit,
        Trouble::FlowLimit => proto::Trouble::FlowLimit,
        Trouble::SubnetNotRouted => proto::Trouble::SubnetNotRouted,
        Trouble::SessionsUnknown => proto::Trouble::SessionsUnknown,
        Trouble::FailedPostStartHook => proto::Trouble::FailedPostStartHook,
        Trouble::FailedPreStopHook => proto::Trouble::FailedPreStopHook,
        Trouble::Unhealthy => proto::Trouble::Unhealthy,
        Trouble::Killing => proto::Trouble::Killing,
        Trouble::FailedReload => proto::Trouble::FailedReload,
    }
}

/// One that a newer agent knows is passed over.
fn trouble(told: proto::PodTrouble) -> Option<(Trouble, String)> {
    let known = Trouble::ALL
        .into_iter()
        .find(|known| wire(*known) == told.trouble())?;
    Some((known, told.message))
}

impl TryFrom<proto::PodStatus> for PodStatus {
    type Error = InvalidMessage;

    fn try_from(w: proto::PodStatus) -> Result<Self, InvalidMessage> {
        let phase = match w.phase() {
            proto::PodPhase::Pending => PodPhase::Pending,
            proto::PodPhase::Running => PodPhase::Running,
            proto::PodPhase::Stopping => PodPhase::Stopping,
            proto::PodPhase::Succeeded => PodPhase::Succeeded,
            proto::PodPhase::Failed => PodPhase::Failed,
            proto::PodPhase::Unspecified => return Err(InvalidMessage::new("phase", "unknown value")),
        };
        let reason = match w.reason() {
            proto::PodReason::Unspecified => None,
            proto::PodReason::DeadlineExceeded => Some(PodReason::DeadlineExceeded),
            proto::PodReason::Evicted => Some(PodReason::Evicted),
        };
        Ok(Self {
            phase,
            ready: w.ready,
            cpus: parse("cpus", &w.cpus)?,
            memory_bytes: w.memory_bytes,
            address: parse_opt("address", w.address.as_deref())?,
            started_at_ms: w.started_at_ms,
            containers: list("containers", w.containers, TryInto::try_into)?,
            sessions: w.sessions,
            message: w.message,
            reason,
            troubles: w.troubles.into_iter().filter_map(trouble).collect(),
        })
    }
}

impl From<&ContainerStatus> for proto::ContainerStatus {
    fn from(m: &ContainerStatus) -> Self {
        Self {
            name: m.name.clone(),
            running: m.running,
            ready: m.ready,
            readiness: Some(
                match m.readiness {
                    Readiness::Unknown => proto::Readiness::Unknown,
                    Readiness::Passed => proto::Readiness::Passed,
                    Readiness::Failed => proto::Readiness::Failed,
                }
                .into(),
            ),
            restarts: m.restarts,
            pid: m.pid,
            started_at_ms: m.started_at_ms,
            image_id: m.image_id.clone(),
            resources: Some((&m.resources).into()),
            message: m.message.clone(),
            limits_message: m.limits_message.clone(),
            limits_wait: m.limits_wait.clone(),
            waiting: waiting(m.waiting).into(),
            started: m.started,
            ended: m.ended.as_ref().map(Into::into),
            last_ended: m.last_ended.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::ContainerStatus> for ContainerStatus {
    type Error = InvalidMessage;

    fn try_from(w: proto::ContainerStatus) -> Result<Self, InvalidMessage> {
        let waiting = waits(w.waiting());
        let readiness = match (w.readiness.is_some(), w.readiness()) {
            // A former agent says no more than whether it is ready.
            (false, _) if w.ready => Readiness::Passed,
            (false, _) | (true, proto::Readiness::Failed) => Readiness::Failed,
            (true, proto::Readiness::Passed) => Readiness::Passed,
            (true, proto::Readiness::Unknown | proto::Readiness::Unspecified) => Readiness::Unknown,
        };
        Ok(Self {
            name: w.name,
            running: w.running,
            ready: w.ready,
            readiness,
            restarts: w.restarts,
            pid: w.pid,
            started_at_ms: w.started_at_ms,
            image_id: w.image_id,
            resources: required(
                "resources",
                optional("resources", w.resources, TryInto::try_into)?,
            )?,
            message: w.message,
            limits_message: w.limits_message,
            limits_wait: w.limits_wait,
            waiting,
            started: w.started,
            ended: optional("ended", w.ended, TryInto::try_into)?,
            last_ended: optional("lastEnded", w.last_ended, TryInto::try_into)?,
        })
    }
}

fn waiting(m: Option<WaitingReason>) -> proto::WaitingReason {
    use proto::WaitingReason as Wire;
    match m {
        None => Wire::Unspecified,
        Some(WaitingReason::ContainerCreating) => Wire::ContainerCreating,
        Some(WaitingReason::PodInitializing) => Wire::PodInitializing,
        Some(WaitingReason::CrashLoopBackOff) => Wire::CrashLoopBackOff,
        Some(WaitingReason::ErrImagePull) => Wire::ErrImagePull,
        Some(WaitingReason::ImagePullBackOff) => Wire::ImagePullBackOff,
        Some(WaitingReason::CreateContainerConfigError) => Wire::CreateContainerConfigError,
        Some(WaitingReason::CreateContainerError) => Wire::CreateContainerError,
    }
}

fn waits(w: proto::WaitingReason) -> Option<WaitingReason> {
    use proto::WaitingReason as Wire;
    match w {
        Wire::Unspecified => None,
        Wire::ContainerCreating => Some(WaitingReason::ContainerCreating),
        Wire::PodInitializing => Some(WaitingReason::PodInitializing),
        Wire::CrashLoopBackOff => Some(WaitingReason::CrashLoopBackOff),
        Wire::ErrImagePull => Some(WaitingReason::ErrImagePull),
        Wire::ImagePullBackOff => Some(WaitingReason::ImagePullBackOff),
        Wire::CreateContainerConfigError => Some(WaitingReason::CreateContainerConfigError),
        Wire::CreateContainerError => Some(WaitingReason::CreateContainerError),
    }
}

impl From<&RunEnd> for proto::RunEnd {
    fn from(m: &RunEnd) -> Self {
        Self {
            attempt: m.attempt,
            exit_code: m.exit_code,
            signal: m.signal,
            reason: match m.reason {
                EndReason::Completed => proto::EndReason::Completed,
                EndReason::Error => proto::EndReason::Error,
                EndReason::OomKilled => proto::EndReason::OomKilled,
                EndReason::StartError => proto::EndReason::StartError,
            }
            .into(),
            message: m.message.clone(),
            started_at_ms: m.started_at_ms,
            finished_at_ms: m.finished_at_ms,
        }
    }
}

impl TryFrom<proto::RunEnd> for RunEnd {
    type Error = InvalidMessage;

    fn try_from(w: proto::RunEnd) -> Result<Self, InvalidMessage> {
        let reason = match w.reason() {
            proto::EndReason::Completed => EndReason::Completed,
            proto::EndReason::Error => EndReason::Error,
            proto::EndReason::OomKilled => EndReason::OomKilled,
            proto::EndReason::StartError => EndReason::StartError,
            proto::EndReason::Unspecified => return Err(InvalidMessage::new("reason", "unknown value")),
        };
        Ok(Self {
            attempt: w.attempt,
            exit_code: w.exit_code,
            signal: w.signal,
            reason,
            message: w.message,
            started_at_ms: w.started_at_ms,
            finished_at_ms: w.finished_at_ms,
        })
    }
}
