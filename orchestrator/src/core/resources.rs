//! CPU, memory and hugepages of containers: from Kubernetes' quantities to numbers and back.

use std::collections::BTreeMap;

use gantry_api::PodExtras;
use gantry_catalog::{Cpu, NetworkFunctionSpec, NfContainer, Smt};
use gantry_nodeagent_api::{ContainerRole, EphemeralStorage, most_at_once};
use gantry_plan::{ContainerRequest, CpuRequest, Placement, SmtPolicy};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pods;
use crate::quantity;

type Quantities = BTreeMap<String, Quantity>;

/// Thousandths of a CPU; what cannot be read counts as none, and the API lets none of that in.
fn milli(quantities: Option<&Quantities>) -> Option<u32> {
    quantity::milli(&quantities?.get("cpu")?.0)
}

/// Bytes; what cannot be read counts as none.
fn bytes(quantities: Option<&Quantities>, key: &str) -> Option<u64> {
    parse_bytes(&quantities?.get(key)?.0)
}

/// Bytes of a text such as `128Mi`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    quantity::units(text)
}

/// The memory limit of a container in bytes, if it has one.
pub fn memory_limit(container: &Container) -> Option<u64> {
    bytes(container.resources.as_ref()?.limits.as_ref(), "memory")
}

/// The memory in bytes that a container asks for. As in Kubernetes, a limit without a request is the request.
pub fn memory_request(container: &Container) -> u64 {
    let resources = container.resources.as_ref();
    bytes(resources.and_then(|r| r.requests.as_ref()), "memory")
        .or_else(|| memory_limit(container))
        .unwrap_or(0)
}

/// What a container may leave on its node's disk. As in Kubernetes, a limit without a request is the request.
pub fn ephemeral_storage(container: &Container) -> EphemeralStorage {
    let resources = container.resources.as_ref();
    let bytes = |from: Option<&Quantities>| bytes(from, "ephemeral-storage");
    let limit = bytes(resources.and_then(|r| r.limits.as_ref()));
    let request = bytes(resources.and_then(|r| r.requests.as_ref()));
    EphemeralStorage {
        request_bytes: request.or(limit).unwrap_or(0),
        limit_bytes: limit.unwrap_or(0),
    }
}

/// What the planner is asked for a container. As in Kubernetes, a limit without a request is the request.
pub fn request(container: &Container, extras: &PodExtras) -> ContainerRequest {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let cpu = match extras.exclusive.get(&container.name) {
        Some(wish) => CpuRequest::Exclusive {
            count: wish.count,
            smt: match wish.smt {
                Smt::Full => SmtPolicy::Full,
                Smt::Any => SmtPolicy::Any,
            },
        },
        None => {
            let limit_milli = milli(limits);
            CpuRequest::Shared {
                request_milli: milli(requests).or(limit_milli).unwrap_or(0),
                limit_milli,
            }
        }
    };
    ContainerRequest {
        name: container.name.clone(),
        cpu,
        memory_bytes: memory_request(container),
        hugepages: hugepages(limits.or(requests)),
        storage_bytes: ephemeral_storage(container).request_bytes,
    }
}

/// What the planner is asked for a pod. Init containers get nothing of their own: what one needs beyond all that lasts is
/// asked for in the name of the first.
pub fn requests(pod: &Pod, extras: &PodExtras) -> Vec<ContainerRequest> {
    let all: Vec<(ContainerRole, ContainerRequest)> = pods::containers(pod)
        .map(|(c, role)| (role, request(c, extras)))
        .collect();
    let beyond = |amount: &dyn Fn(&ContainerRequest) -> u64| {
        let lasting = all.iter().filter(|(role, _)| *role != ContainerRole::Init);
        let lasting = lasting.map(|(_, r)| amount(r)).fold(0, u64::saturating_add);
        most_at_once(all.iter().map(|(role, r)| (*role, amount(r)))).saturating_sub(lasting)
    };
    let milli = |r: &ContainerRequest| match r.cpu {
        CpuRequest::Exclusive { .. } => 0,
        CpuRequest::Shared { request_milli, .. } => u64::from(request_milli),
    };
    let sizes = all.iter().flat_map(|(_, r)| r.hugepages.keys()).copied();
    let hugepages = sizes.map(|size| (size, beyond(&|r| r.hugepages.get(&size).copied().unwrap_or(0))));
    let peak = ContainerRequest {
        name: pods::containers(pod)
            .find(|(_, role)| *role == ContainerRole::Init)
            .map(|(c, _)| c.name.clone())
            .unwrap_or_default(),
        cpu: CpuRequest::Shared {
            request_milli: u32::try_from(beyond(&milli)).unwrap_or(u32::MAX),
            limit_milli: None,
        },
        memory_bytes: beyond(&|r| r.memory_bytes),
        hugepages: hugepages.filter(|(_, amount)| *amount > 0).collect(),
        storage_bytes: beyond(&|r| r.storage_bytes),
    };
    let asks =
        milli(&peak) > 0 || peak.memory_bytes > 0 || !peak.hugepages.is_empty() || peak.storage_bytes > 0;
    let lasting = all.into_iter().filter(|(role, _)| *role != ContainerRole::Init);
    lasting.map(|(_, r)| r).chain(asks.then_some(peak)).collect()
}

fn hugepages(quantities: Option<&Quantities>) -> BTreeMap<u64, u64> {
    let pages = quantities.into_iter().flatten().filter_map(|(key, amount)| {
        Some((
            parse_bytes(key.strip_prefix("hugepages-")?)?,
            parse_bytes(&amount.0)?,
        ))
    });
    pages.filter(|(_, amount)| *amount > 0).collect()
}

/// CPU of a container of a function: the package's default, or what the function overrides.
pub fn cpu_of<'a>(container: &'a NfContainer, spec: &'a NetworkFunctionSpec) -> &'a Cpu {
    spec.resources
        .get(&container.name)
        .and_then(|o| o.cpu.as_ref())
        .unwrap_or(&container.cpu)
}

/// Requests and limits of a container of a function.
pub fn requirements(container: &NfContainer, spec: &NetworkFunctionSpec) -> ResourceRequirements {
    let memory = spec
        .resources
        .get(&container.name)
        .and_then(|o| o.memory)
        .unwrap_or(container.memory);
    let mut requests = Quantities::new();
    let mut limits = Quantities::new();
    let mut both = |key: String, value: String| {
        requests.insert(key.clone(), Quantity(value.clone()));
        limits.insert(key, Quantity(value));
    };
    if memory.0 > 0 {
        both("memory".to_owned(), memory.to_string());
    }
    for (size, amount) in &container.hugepages {
        both(format!("hugepages-{size}"), amount.to_string());
    }
    match cpu_of(container, spec) {
        Cpu::Exclusive { count, .. } => both("cpu".to_owned(), count.to_string()),
        Cpu::Shared { request, limit } => {
            requests.insert("cpu".to_owned(), Quantity(request.to_string()));
            if let Some(limit) = limit {
                limits.insert("cpu".to_owned(), Quantity(limit.to_string()));
            }
        }
    }
    let some = |q: Quantities| (!q.is_empty()).then_some(q);
    ResourceRequirements {
        requests: some(requests),
        limits: some(limits),
        ..Default::default()
    }
}

/// CPU size of a pod in thousandths as granted, for load-balancer weights; at least 1.
pub fn weight(placement: &Placement) -> u32 {
    let sizes = placement.containers.iter().map(|c| match c.cpu {
        CpuRequest::Exclusive { count, .. } => count.saturating_mul(1000),
        CpuRequest::Shared { request_milli, .. } => request_milli,
    });
    sizes.fold(0u32, u32::saturating_add).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let map = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())))
                    .collect(),
            )
        };
        let resources = Some(ResourceRequirements {
            requests: map(requests),
            limits: map(limits),
            ..Default::default()
        });
        Container {
            name: "c".into(),
            resources,
            ..Default::default()
        }
    }

    #[test]
    fn a_limit_without_a_request_is_the_request() {
        let request = request(
            &container(&[], &[("cpu", "500m"), ("memory", "1Mi")]),
            &PodExtras::default(),
        );
        assert_eq!(
            request.cpu,
            CpuRequest::Shared {
                request_milli: 500,
                limit_milli: Some(500)
            }
        );
        assert_eq!(request.memory_bytes, 1 << 20);
    }

    #[test]
    fn a_limit_in_decimals_is_a_limit() {
        let container = container(&[], &[("cpu", "1500u"), ("memory", "1.5Gi")]);
        assert_eq!(memory_limit(&container), Some(3 << 29));
        let request = request(&container, &PodExtras::default());
        assert_eq!(request.memory_bytes, 3 << 29);
        assert!(matches!(
            request.cpu,
            CpuRequest::Shared {
                limit_milli: Some(2),
                ..
            }
        ));
    }

    #[test]
    fn a_pod_asks_for_the_most_that_it_needs_at_once() {
        let part = |name: &str, memory: &str| Container {
            name: name.to_owned(),
            ..container(&[("cpu", "100m"), ("memory", memory)], &[])
        };
        let sidecar = Container {
            restart_policy: Some("Always".to_owned()),
            ..part("side", "10Mi")
        };
        let mut pod = Pod {
            spec: Some(k8s_openapi::api::core::v1::PodSpec {
                init_containers: Some(vec![sidecar, part("make", "64Mi")]),
                containers: vec![part("c", "32Mi")],
                ..Default::default()
            }),
            ..Pod::default()
        };
        let asked = |pod: &Pod| -> Vec<(String, u64)> {
            let all = requests(pod, &PodExtras::default());
            all.into_iter().map(|r| (r.name, r.memory_bytes >> 20)).collect()
        };
        let named = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
            list.iter().map(|(n, m)| ((*n).to_owned(), *m)).collect()
        };
        assert_eq!(asked(&pod), named(&[("side", 10), ("c", 32), ("make", 32)]));
        pod.spec.as_mut().unwrap().containers[0] = part("c", "64Mi");
        assert_eq!(asked(&pod), named(&[("side", 10), ("c", 64)]));
    }

    #[test]
    fn ephemeral_storage_is_asked_for_and_bounded() {
        let storage = |requests: &[(&str, &str)], limits: &[(&str, &str)]| {
            let container = container(requests, limits);
            let own = ephemeral_storage(&container);
            let asked = request(&container, &PodExtras::default()).storage_bytes;
            assert_eq!(asked, own.request_bytes);
            (own.request_bytes, own.limit_bytes)
        };
        let mebi = |text: &'static str| [("ephemeral-storage", text)];
        assert_eq!(storage(&[], &[]), (0, 0));
        assert_eq!(storage(&[], &mebi("10Mi")), (10 << 20, 10 << 20));
        assert_eq!(storage(&mebi("1Mi"), &mebi("10Mi")), (1 << 20, 10 << 20));
        assert_eq!(storage(&mebi("1Mi"), &[]), (1 << 20, 0));
    }

    #[test]
    fn hugepages_are_read_by_page_size() {
        let request = request(
            &container(&[], &[("hugepages-2Mi", "4Mi")]),
            &PodExtras::default(),
        );
        assert_eq!(request.hugepages, BTreeMap::from([(2 << 20, 4 << 20)]));
    }
}
