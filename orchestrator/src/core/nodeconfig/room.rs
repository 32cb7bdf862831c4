//! How much of a node's configuration pods take: each pod, each group of namespaces and all of them have a bound, since a node is told
//! everything in one message. Who is there stays; who comes where there is no room left waits, and is told why.

use std::collections::BTreeMap;

use gantry_nodeagent_api::PodConfig;

use super::super::limits::Limits;

/// The longest text that a program can be given (execve(2), `MAX_ARG_STRLEN` without the zero byte).
pub(super) const MAX_TEXT: usize = (128 << 10) - 1;

const WHAT: &str = "files of volumes, variables and commands";

/// What one pod may still take: nothing is copied for it beyond that, however often it refers to the same.
pub(super) struct Allowance {
    most: usize,
    left: Option<usize>,
}

impl Allowance {
    /// All that a pod may have.
    pub(super) fn new(limits: &Limits) -> Self {
        let most = limits.config.pod;
        Self {
            most,
            left: Some(most),
        }
    }

    /// Takes so many bytes; once there are not enough left, nothing is any more.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.and_then(|left| left.checked_sub(bytes));
        self.problem().map_or(Ok(()), Err)
    }

    /// Why it was not enough, if it was not.
    pub(super) fn problem(&self) -> Option<String> {
        self.left.is_none().then(|| too_large(self.most))
    }
}

fn too_large(most: usize) -> String {
    let most = mib(most);
    format!(
        "its {WHAT} are too large: a pod may have {most} MiB of them; mount fewer or smaller ConfigMaps and Secrets"
    )
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}

/// What is taken on one node, in bytes.
pub(super) struct Room {
    limits: Limits,
    groups: BTreeMap<String, usize>,
    all: usize,
}

impl Room {
    /// With the pods that the node has.
    pub(super) fn new<'a>(limits: Limits, there: impl Iterator<Item = &'a PodConfig>) -> Self {
        let mut room = Self {
            limits,
            groups: BTreeMap::new(),
            all: 0,
        };
        for pod in there {
            room.add(pod.share_group(), pod.size_bytes());
        }
        room
    }

    /// Takes one more pod in, or says why not.
    pub(super) fn enter(&mut self, pod: &PodConfig) -> Result<(), String> {
        self.grow(pod, 0)
    }

    /// A pod that is there becomes another, or stays, and this says why.
    pub(super) fn change(&mut self, from: &PodConfig, to: &PodConfig) -> Result<(), String> {
        self.grow(to, from.size_bytes())
    }

    fn grow(&mut self, pod: &PodConfig, before: usize) -> Result<(), String> {
        let size = pod.size_bytes();
        let more = size.saturating_sub(before);
        let (group, config) = (pod.share_group(), self.limits.config);
        let share = config.node / self.limits.group_share;
        let of_group = self.groups.get(&group).copied().unwrap_or_default();
        // Who becomes smaller always may.
        if more > 0 && size > config.pod {
            return Err(too_large(config.pod));
        }
        if more > 0 && of_group.saturating_add(more) > share {
            return Err(format!(
                "{group} has no room left on the node: {WHAT} of its pods there may come to {} MiB",
                mib(share)
            ));
        }
        if more > 0 && self.all.saturating_add(more) > config.node {
            return Err(format!(
                "the node has no room left: {WHAT} of all its pods may come to {} MiB",
                mib(config.node)
            ));
        }
        self.add(group, more);
        Ok(())
    }

    fn add(&mut self, group: String, bytes: usize) {
        *self.groups.entry(group).or_default() += bytes;
        self.all += bytes;
    }
}

#[cfg(test)]
mod tests {
    use gantry_nodeagent_api::Volume;

    use super::*;

    fn pod(namespace: &str, file: usize) -> PodConfig {
        let files = BTreeMap::from([("f".to_owned(), "x".repeat(file).as_str().into())]);
        PodConfig {
            namespace: namespace.to_owned(),
            volumes: BTreeMap::from([("v".to_owned(), Volume::Files(files))]),
            ..PodConfig::default()
        }
    }

    #[test]
    fn a_pod_a_namespace_and_the_node_have_an_end() {
        let mut room = Room::new(Limits::default(), [pod("a", 3 << 20)].iter());
        let text = room.enter(&pod("a", 5 << 20)).unwrap_err();
        assert!(text.contains("a pod may have 4 MiB"), "{text}");
        room.enter(&pod("a", 3 << 20)).unwrap();
        let text = room.enter(&pod("a", 3 << 20)).unwrap_err();
        assert!(
            text.contains("namespace a has no room left on the node"),
            "{text}"
        );
        for namespace in ["b", "c", "d"] {
            room.enter(&pod(namespace, 3 << 20)).unwrap();
            room.enter(&pod(namespace, 3 << 20)).unwrap();
        }
        room.enter(&pod("e", 3 << 20)).unwrap();
        room.enter(&pod("e", 3 << 20)).unwrap();
        let text = room.enter(&pod("f", 3 << 20)).unwrap_err();
        assert!(text.contains("may come to 32 MiB"), "{text}");
    }

    #[test]
    fn many_namespaces_of_one_person_have_one_share() {
        let of_eve = |namespace| PodConfig {
            requester: "eve".to_owned(),
            ..pod(namespace, 3 << 20)
        };
        let mut room = Room::new(Limits::default(), [of_eve("a"), of_eve("b")].iter());
        let text = room.enter(&of_eve("c")).unwrap_err();
        assert!(text.contains("user eve has no room left on the node"), "{text}");
        room.enter(&pod("d", 3 << 20)).unwrap();
    }

    #[test]
    fn who_is_there_may_become_smaller_and_grow_where_there_is_room() {
        let (small, large) = (pod("a", 1 << 20), pod("a", 7 << 20));
        let mut room = Room::new(Limits::default(), [large.clone(), small.clone()].iter());
        room.change(&large, &small).unwrap();
        assert!(
            room.change(&small, &pod("a", 2 << 20)).is_err(),
            "what became smaller is free in the next pass"
        );
        let mut room = Room::new(Limits::default(), [small.clone()].iter());
        room.change(&small, &pod("a", 2 << 20)).unwrap();
    }
}
