//! Sizes as Kubernetes shows them in a container's status, and whether what the kernel shows is what was asked.

use std::collections::BTreeMap;

use gantry_nodeagent_api::ContainerResources;
use gantry_plan::{ContainerPlacement, CpuRequest};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

type Quantities = BTreeMap<String, Quantity>;

/// Memory limits in the kernel are whole pages.
const PAGE_BYTES: u64 = 4096;
/// CPU limits below this are raised to it, in thousandths.
const LEAST_LIMIT_MILLI: u32 = 10;
/// `cpu.weight` (v2) keeps CPU requests in steps of this many thousandths,
const WEIGHT_STEP_MILLI: u32 = 10;
/// and up to this many.
const MOST_WEIGHT_MILLI: u32 = 100_000;

/// What the plan grants: `allocatedResources`.
pub fn allocated(granted: &ContainerPlacement) -> Quantities {
    let cpu_milli = match granted.cpu {
        CpuRequest::Exclusive { count, .. } => count.saturating_mul(1000),
        CpuRequest::Shared { request_milli, .. } => request_milli,
    };
    let mut table = Quantities::from([("cpu".to_owned(), cpu(cpu_milli))]);
    let memory_bytes: u64 = granted.memory_bytes.values().sum();
    if memory_bytes > 0 {
        table.insert("memory".to_owned(), bytes(memory_bytes));
    }
    for (page_bytes, amount) in granted.hugepages.values().flatten() {
        let name = format!("hugepages-{}", bytes(*page_bytes).0);
        table.insert(name, bytes(*amount));
    }
    table
}

/// What the kernel shows: `resources`. No kernel keeps a request of memory, so that one is the plan's.
pub fn in_force(seen: &ContainerResources, allocated: &Quantities) -> ResourceRequirements {
    let own_milli = u32::try_from(seen.cpus.len())
        .unwrap_or(u32::MAX)
        .saturating_mul(1000);
    let (request_milli, limit_milli) = match own_milli {
        0 => (seen.cpu_request_milli, seen.cpu_limit_milli),
        milli => (milli, Some(milli)),
    };
    let mut requests = Quantities::new();
    let mut limits = Quantities::new();
    if request_milli > 0 {
        requests.insert("cpu".to_owned(), cpu(request_milli));
    }
    if let Some(milli) = limit_milli {
        limits.insert("cpu".to_owned(), cpu(milli));
    }
    if let Some(memory) = allocated.get("memory") {
        requests.insert("memory".to_owned(), memory.clone());
    }
    if seen.memory_bytes > 0 {
        limits.insert("memory".to_owned(), bytes(seen.memory_bytes));
    }
    for (page_bytes, amount) in seen.hugepages.iter().filter(|(_, amount)| **amount > 0) {
        let name = format!("hugepages-{}", bytes(*page_bytes).0);
        requests.insert(name.clone(), bytes(*amount));
        limits.insert(name, bytes(*amount));
    }
    let some = |q: Quantities| (!q.is_empty()).then_some(q);
    ResourceRequirements {
        requests: some(requests),
        limits: some(limits),
        ..Default::default()
    }
}

fn cpu(milli: u32) -> Quantity {
    Quantity(gantry_catalog::MilliCpu(milli).to_string())
}

fn bytes(amount: u64) -> Quantity {
    Quantity(gantry_catalog::Quantity(amount).to_string())
}

/// What is read back from the kernel is what was asked, as exactly as the kernel keeps it.
pub fn is_same(seen: &ContainerResources, wanted: &ContainerResources) -> bool {
    let pages = |r: &ContainerResources| r.memory_bytes / PAGE_BYTES;
    let limit = |r: &ContainerResources| r.cpu_limit_milli.map(|milli| milli.max(LEAST_LIMIT_MILLI));
    let hugepages = |r: &ContainerResources| -> Vec<(u64, u64)> {
        let some = r.hugepages.iter().filter(|(_, bytes)| **bytes > 0);
        some.map(|(size, bytes)| (*size, *bytes)).collect()
    };
    seen.cpus == wanted.cpus
        && is_same_request(seen.cpu_request_milli, wanted.cpu_request_milli)
        && limit(seen) == limit(wanted)
        && pages(seen) == pages(wanted)
        && hugepages(seen) == hugepages(wanted)
}

/// The least weight reads as none.
fn is_same_request(seen_milli: u32, wanted_milli: u32) -> bool {
    let least = seen_milli == 0 && wanted_milli < 2 * WEIGHT_STEP_MILLI;
    let most = |milli: u32| milli.min(MOST_WEIGHT_MILLI);
    least || most(seen_milli).abs_diff(most(wanted_milli)) < WEIGHT_STEP_MILLI
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(cpus: &str, request: u32, limit: Option<u32>, memory: u64, pages: u64) -> ContainerResources {
        ContainerResources {
            cpus: cpus.parse().unwrap(),
            cpu_request_milli: request,
            cpu_limit_milli: limit,
            memory_bytes: memory,
            hugepages: [(2 << 20, pages)].into(),
        }
    }

    #[test]
    fn a_size_is_compared_in_all_its_parts() {
        let none = ContainerResources {
            hugepages: [].into(),
            ..size("", 105, None, 8192, 0)
        };
        for (seen, wanted, same) in [
            (size("", 105, None, 8192, 0), none, true),
            (size("", 100, None, 8192, 0), size("", 105, None, 8300, 0), true),
            (size("", 0, None, 0, 0), size("", 15, None, 0, 0), true),
            (size("", 100_000, None, 0, 0), size("", 200_000, None, 0, 0), true),
            (size("", 0, Some(10), 0, 0), size("", 0, Some(5), 0, 0), true),
            (size("", 200, None, 0, 0), size("", 400, None, 0, 0), false),
            (size("", 200, None, 0, 0), size("", 200, Some(200), 0, 0), false),
            (size("2-3", 2000, None, 0, 0), size("", 2000, None, 0, 0), false),
            (size("", 2000, None, 0, 0), size("2-3", 2000, None, 0, 0), false),
            (size("", 200, None, 4096, 0), size("", 200, None, 8192, 0), false),
            (size("", 200, None, 0, 2 << 20), size("", 200, None, 0, 0), false),
        ] {
            assert_eq!(is_same(&seen, &wanted), same, "{seen:?} {wanted:?}");
        }
    }

    #[test]
    fn requests_are_requests_and_limits_are_limits() {
        let granted = |cpu, memory_bytes: u64| ContainerPlacement {
            cpu,
            memory_bytes: BTreeMap::from([(0, memory_bytes)]),
            ..ContainerPlacement::default()
        };
        let shared = CpuRequest::Shared {
            request_milli: 10,
            limit_milli: Some(100),
        };
        let texts = |q: Option<Quantities>| -> Vec<String> {
            let all = q.into_iter().flatten();
            all.map(|(name, amount)| format!("{name}={}", amount.0)).collect()
        };
        let table = allocated(&granted(shared, 16 << 20));
        assert_eq!(texts(Some(table.clone())), ["cpu=10m", "memory=16Mi"]);
        let seen = size("", 10, Some(100), 32 << 20, 0);
        let shown = in_force(&seen, &table);
        assert_eq!(texts(shown.requests), ["cpu=10m", "memory=16Mi"]);
        assert_eq!(texts(shown.limits), ["cpu=100m", "memory=32Mi"]);
        let shown = in_force(&size("", 10, None, 0, 0), &table);
        assert_eq!(texts(shown.limits), [""; 0]);
        let shown = in_force(&size("2-3", 2000, None, 0, 2 << 20), &Quantities::new());
        assert_eq!(texts(shown.requests), ["cpu=2", "hugepages-2Mi=2Mi"]);
        assert_eq!(texts(shown.limits), ["cpu=2", "hugepages-2Mi=2Mi"]);
    }
}
