//! Configuration: node, pod, service.

use std::collections::BTreeMap;

use super::{InvalidMessage, list, map, optional, parse, parse_opt, port};
use crate::{
    Backend, ClaimConfig, ClaimId, DEFAULT_UDP_IDLE_S, Generation, NodeConfig, NodeNetwork, PodConfig,
    PodDesired, Protocol, QosClass, RestartPolicy, ServiceConfig, ServicePort, SessionProbe, SrvTarget,
    proto,
};

impl From<&NodeConfig> for proto::NodeConfig {
    fn from(m: &NodeConfig) -> Self {
        Self {
            generation: m.generation.0,
            network: m.network.as_ref().map(Into::into),
            shared_cpus: m.shared_cpus.to_string(),
            pods: m
                .pods
                .iter()
                .map(|(uid, pod)| (uid.clone(), pod.into()))
                .collect(),
            services: m
                .services
                .iter()
                .map(|(name, s)| (name.clone(), s.into()))
                .collect(),
            dns: m
                .dns
                .iter()
                .map(|(name, list)| {
                    let addresses = list.iter().map(ToString::to_string).collect();
                    (name.clone(), proto::Addresses { addresses })
                })
                .collect(),
            cluster: m.cluster.clone(),
            srv: m
                .srv
                .iter()
                .map(|(name, list)| {
                    let target = |t: &SrvTarget| proto::SrvTarget {
                        name: t.name.clone(),
                        port: t.port.into(),
                    };
                    let targets = list.iter().map(target).collect();
                    (name.clone(), proto::SrvTargets { targets })
                })
                .collect(),
            claims: m.claims.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::NodeConfig> for NodeConfig {
    type Error = InvalidMessage;

    fn try_from(w: proto::NodeConfig) -> Result<Self, InvalidMessage> {
        Ok(Self {
            generation: Generation(w.generation),
            network: optional("network", w.network, TryInto::try_into)?,
            shared_cpus: parse("sharedCpus", &w.shared_cpus)?,
            pods: map("pods", w.pods, TryInto::try_into)?,
            services: map("services", w.services, TryInto::try_into)?,
            dns: map("dns", w.dns, |a| {
                a.addresses.iter().map(|t| parse("addresses", t)).collect()
            })?,
            cluster: w.cluster,
            srv: map("srv", w.srv, |s| {
                let target = |t: proto::SrvTarget| {
                    Ok(SrvTarget {
                        name: t.name,
                        port: port("port", t.port)?,
                    })
                };
                s.targets.into_iter().map(target).collect()
            })?,
            claims: w.claims.map(claims),
        })
    }
}

impl From<&BTreeMap<ClaimId, ClaimConfig>> for proto::Claims {
    fn from(m: &BTreeMap<ClaimId, ClaimConfig>) -> Self {
        let claim = |c: &ClaimConfig| proto::claims::Claim {
            namespace: c.namespace.clone(),
            name: c.name.clone(),
            size_bytes: c.size_bytes,
        };
        Self {
            claims: m.iter().map(|(id, c)| (id.clone(), claim(c))).collect(),
        }
    }
}

fn claims(w: proto::Claims) -> BTreeMap<ClaimId, ClaimConfig> {
    let claim = |c: proto::claims::Claim| ClaimConfig {
        namespace: c.namespace,
        name: c.name,
        size_bytes: c.size_bytes,
    };
    w.claims.into_iter().map(|(id, c)| (id, claim(c))).collect()
}

impl From<&NodeNetwork> for proto::NodeNetwork {
    fn from(m: &NodeNetwork) -> Self {
        Self {
            pod_cidr: m.pod_cidr.to_string(),
            service_cidr: m.service_cidr.to_string(),
            gateway: m.gateway.to_string(),
            cluster_domain: m.cluster_domain.clone(),
        }
    }
}

impl TryFrom<proto::NodeNetwork> for NodeNetwork {
    type Error = InvalidMessage;

    fn try_from(w: proto::NodeNetwork) -> Result<Self, InvalidMessage> {
        Ok(Self {
            pod_cidr: parse("podCidr", &w.pod_cidr)?,
            service_cidr: parse("serviceCidr", &w.service_cidr)?,
            gateway: parse("gateway", &w.gateway)?,
            cluster_domain: w.cluster_domain,
        })
    }
}

impl From<&PodConfig> for proto::PodConfig {
    fn from(m: &PodConfig) -> Self {
        Self {
            namespace: m.namespace.clone(),
            name: m.name.clone(),
            requester: m.requester.clone(),
            labels: m.labels.clone(),
            desired: match m.desired {
                PodDesired::Run => proto::PodDesired::Run,
                PodDesired::Stop => proto::PodDesired::Stop,
                PodDesired::Keep => proto::PodDesired::Keep,
            }
            .into(),
            address: m.address.map(|a| a.to_string()),
            host_network: m.host_network,
            restart_policy: match m.restart_policy {
                RestartPolicy::Always => proto::RestartPolicy::Always,
                RestartPolicy::OnFailure => proto::RestartPolicy::OnFailure,
                RestartPolicy::Never => proto::RestartPolicy::Never,
            }
            .into(),
            termination_grace_s: m.termination_grace_s,
            numa_nodes: m.numa_nodes.clone(),
            containers: m.containers.iter().map(Into::into).collect(),
            volumes: m
                .volumes
                .iter()
                .map(|(name, v)| (name.clone(), v.into()))
                .collect(),
            security: Some((&m.security).into()),
            names: Some((&m.names).into()),
            sessions: m.sessions.as_ref().map(|s| proto::SessionProbe {
                port: s.port.into(),
                path: s.path.clone(),
                metric: s.metric.clone(),
            }),
            deadline_ms: m.deadline_ms,
            qos: match m.qos {
                QosClass::Guaranteed => proto::QosClass::Guaranteed,
                QosClass::Burstable => proto::QosClass::Burstable,
                QosClass::BestEffort => proto::QosClass::BestEffort,
            }
            .into(),
            subnets: m.subnets.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<proto::PodConfig> for PodConfig {
    type Error = InvalidMessage;

    fn try_from(w: proto::PodConfig) -> Result<Self, InvalidMessage> {
        let desired = match w.desired() {
            proto::PodDesired::Run => PodDesired::Run,
            proto::PodDesired::Stop => PodDesired::Stop,
            proto::PodDesired::Keep => PodDesired::Keep,
            proto::PodDesired::Unspecified => return Err(InvalidMessage::new("desired", "unknown value")),
        };
        let restart_policy = match w.restart_policy() {
            proto::RestartPolicy::Always => RestartPolicy::Always,
            proto::RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            proto::RestartPolicy::Never => RestartPolicy::Never,
            proto::RestartPolicy::Unspecified => {
                return Err(InvalidMessage::new("restartPolicy", "unknown value"));
            }
        };
        let qos = match w.qos() {
            proto::QosClass::Guaranteed => QosClass::Guaranteed,
            proto::QosClass::Burstable | proto::QosClass::Unspecified => QosClass::Burstable,
            proto::QosClass::BestEffort => QosClass::BestEffort,
        };
        Ok(Self {
            namespace: w.namespace,
            name: w.name,
            requester: w.requester,
            labels: w.labels,
            desired,
            address: parse_opt("address", w.address.as_deref())?,
            host_network: w.host_network,
            restart_policy,
            termination_grace_s: w.termination_grace_s,
            numa_nodes: w.numa_nodes,
            containers: list("containers", w.containers, TryInto::try_into)?,
            volumes: map("volumes", w.volumes, TryInto::try_into)?,
            security: w.security.unwrap_or_default().into(),
            names: optional("names", w.names, TryInto::try_into)?.unwrap_or_default(),
            sessions: optional("sessions", w.sessions, |s| {
                Ok(SessionProbe {
                    port: port("port", s.port)?,
                    path: s.path,
                    metric: s.metric,
                })
            })?,
            deadline_ms: w.deadline_ms,
            qos,
            subnets: list("subnets", w.subnets, |text| parse("subnet", &text))?,
        })
    }
}

impl From<&ServiceConfig> for proto::ServiceConfig {
    fn from(m: &ServiceConfig) -> Self {
        Self {
            vip: m.vip.to_string(),
            ports: m.ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::ServiceConfig> for ServiceConfig {
    type Error = InvalidMessage;

    fn try_from(w: proto::ServiceConfig) -> Result<Self, InvalidMessage> {
        Ok(Self {
            vip: parse("vip", &w.vip)?,
            ports: list("ports", w.ports, TryInto::try_into)?,
        })
    }
}

impl From<&ServicePort> for proto::ServicePort {
    fn from(m: &ServicePort) -> Self {
        Self {
            port: m.port.into(),
            protocol: match m.protocol {
                Protocol::Tcp => proto::Protocol::Tcp,
                Protocol::Udp => proto::Protocol::Udp,
                Protocol::Sctp => proto::Protocol::Sctp,
            }
            .into(),
            backends: m
                .backends
                .iter()
                .map(|b| proto::Backend {
                    pod: b.pod.clone(),
                    address: b.address.to_string(),
                    port: b.port.into(),
                    weight: b.weight,
                    draining: b.draining,
                    udp_idle_s: b.udp_idle_s,
                })
                .collect(),
        }
    }
}

impl TryFrom<proto::ServicePort> for ServicePort {
    type Error = InvalidMessage;

    fn try_from(w: proto::ServicePort) -> Result<Self, InvalidMessage> {
        let protocol = match w.protocol() {
            proto::Protocol::Tcp => Protocol::Tcp,
            proto::Protocol::Udp => Protocol::Udp,
            proto::Protocol::Sctp => Protocol::Sctp,
            proto::Protocol::Unspecified => return Err(InvalidMessage::new("protocol", "unknown value")),
        };
        let backend = |b: proto::Backend| {
            Ok(Backend {
                pod: b.pod,
                address: parse("address", &b.address)?,
                port: port("port", b.port)?,
                weight: b.weight,
                draining: b.draining,
                udp_idle_s: match b.udp_idle_s {
                    0 => DEFAULT_UDP_IDLE_S,
                    known => known,
                },
            })
        };
        Ok(Self {
            port: port("port", w.port)?,
            protocol,
            backends: list("backends", w.backends, backend)?,
        })
    }
}
