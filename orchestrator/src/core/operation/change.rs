//! What changed between two specs, in kinds and in words.

use gantry_api::{NetworkFunctionSpec, OperationKind};
use gantry_catalog::{Cpu, ResourceOverride};

/// A change.
pub(super) struct Change {
    /// What it is; empty if nothing changed that matters to instances.
    pub kinds: Vec<OperationKind>,
    /// In words.
    pub asked: String,
    /// It makes another revision.
    pub revises: bool,
}

/// The change from `before` (none: the function is new) to `after`.
pub(super) fn between(
    before: Option<&NetworkFunctionSpec>,
    after: &NetworkFunctionSpec,
    leaves: bool,
) -> Change {
    let one = |kind, asked: String| Change {
        kinds: vec![kind],
        asked,
        revises: false,
    };
    if leaves {
        return one(OperationKind::Undeploy, "undeploy".to_owned());
    }
    let Some(before) = before else {
        return one(
            OperationKind::Deploy,
            format!("deploy {} {} x {}", after.package, after.version, after.replicas),
        );
    };
    let mut change = Change {
        kinds: Vec::new(),
        asked: String::new(),
        revises: false,
    };
    let mut words = Vec::new();
    if before.replicas != after.replicas {
        change.kinds.push(OperationKind::Scale);
        words.push(format!("replicas {} -> {}", before.replicas, after.replicas));
    }
    if before.resources != after.resources {
        change.kinds.push(OperationKind::Resize);
        words.extend(sizes(before, after));
    }
    let revision = |s: &NetworkFunctionSpec| {
        (
            s.package.clone(),
            s.version.clone(),
            s.values.clone(),
            s.peers.clone(),
        )
    };
    if revision(before) != revision(after) {
        change.kinds.push(OperationKind::Upgrade);
        change.revises = true;
        words.extend(versions(before, after));
    }
    change.asked = words.join(", ");
    change
}

fn sizes(before: &NetworkFunctionSpec, after: &NetworkFunctionSpec) -> Vec<String> {
    let names = before
        .resources
        .keys()
        .chain(after.resources.keys())
        .collect::<std::collections::BTreeSet<_>>();
    let changed = names
        .into_iter()
        .filter(|n| before.resources.get(*n) != after.resources.get(*n));
    changed
        .map(|n| {
            format!(
                "{n} {} -> {}",
                size(before.resources.get(n)),
                size(after.resources.get(n))
            )
        })
        .collect()
}

fn size(given: Option<&ResourceOverride>) -> String {
    let cpu = given.and_then(|o| o.cpu.as_ref()).map(|cpu| match cpu {
        Cpu::Exclusive { count, .. } => format!("{count} exclusive CPUs"),
        Cpu::Shared { request, limit: None } => format!("cpu {request}"),
        Cpu::Shared {
            request,
            limit: Some(limit),
        } => format!("cpu {request}/{limit}"),
    });
    let memory = given.and_then(|o| o.memory).map(|m| format!("memory {m}"));
    let parts: Vec<String> = cpu.into_iter().chain(memory).collect();
    if parts.is_empty() {
        "the package's size".to_owned()
    } else {
        parts.join(" ")
    }
}

fn versions(before: &NetworkFunctionSpec, after: &NetworkFunctionSpec) -> Vec<String> {
    let mut words = Vec::new();
    if (&before.package, &before.version) != (&after.package, &after.version) {
        words.push(format!(
            "{} {} -> {} {}",
            before.package, before.version, after.package, after.version
        ));
    }
    let keys = before
        .values
        .keys()
        .chain(after.values.keys())
        .collect::<std::collections::BTreeSet<_>>();
    for key in keys
        .into_iter()
        .filter(|k| before.values.get(*k) != after.values.get(*k))
    {
        let text = |s: &NetworkFunctionSpec| {
            s.values
                .get(key)
                .map_or_else(|| "default".to_owned(), ToString::to_string)
        };
        words.push(format!("{key} {} -> {}", text(before), text(after)));
    }
    if before.peers != after.peers {
        words.push("other peers".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(replicas: u32, version: &str) -> NetworkFunctionSpec {
        NetworkFunctionSpec {
            package: "p".into(),
            version: version.into(),
            replicas,
            ..Default::default()
        }
    }

    #[test]
    fn a_change_is_told_in_words() {
        let change = between(Some(&spec(1, "1.0.0")), &spec(4, "1.1.0"), false);
        assert_eq!(change.kinds, [OperationKind::Scale, OperationKind::Upgrade]);
        assert_eq!(change.asked, "replicas 1 -> 4, p 1.0.0 -> p 1.1.0");
        assert!(change.revises);
        assert!(
            between(Some(&spec(1, "1.0.0")), &spec(1, "1.0.0"), false)
                .kinds
                .is_empty()
        );
        assert_eq!(
            between(None, &spec(1, "1.0.0"), false).kinds,
            [OperationKind::Deploy]
        );
    }
}
