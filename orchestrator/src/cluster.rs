//! Whose state this is: one id in the settings, the store, the authority and the nodes' ledgers. Pure.
//!
//! The id is made once, with the store, and stays. What contradicts it is refused, and so is an emptiness where a cluster
//! was: whoever goes on from there stops the pods that run.

use std::path::PathBuf;

use thiserror::Error;

/// What a part of the state says of the cluster that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// There is no such part, or nothing in it.
    #[default]
    Absent,
    /// It is of the first version, which had no ids.
    Unmarked,
    /// This cluster.
    Of(String),
}

impl Mark {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Of(id) => Some(id),
            Self::Absent | Self::Unmarked => None,
        }
    }
}

/// What was found in a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// `settings.json`, which names the cluster once it has come up.
    pub settings: Mark,
    /// `store.redb`.
    pub store: Mark,
    /// `pki/ca.crt`.
    pub authority: Mark,
    /// A node agent has worked here.
    pub agent: bool,
}

/// The state is not of one cluster, or not all of it is there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClusterError {
    /// Two parts of two clusters.
    #[error(
        "{} belongs to cluster {cluster} and {} to cluster {other_cluster}; put back the one that is this Gantry's own, or all of it: `gantry restore FILE`",
        file.display(), other.display()
    )]
    Mismatch {
        /// One.
        file: PathBuf,
        /// Its cluster.
        cluster: String,
        /// The other.
        other: PathBuf,
        /// Its cluster.
        other_cluster: String,
    },
    /// A store without an id beside parts that have one.
    #[error(
        "store.redb is of the first version and names no cluster, but {} belongs to cluster {cluster}; put back this Gantry's own store: `gantry restore FILE`",
        file.display()
    )]
    Unmarked {
        /// What has one.
        file: PathBuf,
        /// Which.
        cluster: String,
    },
    /// A cluster was here, and its store is not.
    #[error(
        "store.redb is missing or empty, but {} shows that a cluster was here. Is its file system mounted? Put the store back (`gantry restore FILE`), or start anew with nothing (`gantry down --purge`, then `gantry up`)",
        file.display()
    )]
    Empty {
        /// What shows it.
        file: PathBuf,
    },
    /// The store is there, and nobody whom the agents and the kubeconfigs trust.
    #[error(
        "pki/ca.key and pki/ca.crt are missing, but store.redb is there. Put them back (`gantry restore FILE`), or start anew with nothing (`gantry down --purge`, then `gantry up`)"
    )]
    NoAuthority,
}

/// The id of the cluster whose state this is; `None` for one that has none yet: a new one, or one of the first version.
pub fn judge(found: &Evidence) -> Result<Option<String>, ClusterError> {
    let parts = [
        ("settings.json", &found.settings),
        ("pki/ca.crt", &found.authority),
        ("store.redb", &found.store),
    ];
    let marked = |mark: &Mark| mark.id().map(str::to_owned);
    let known: Vec<(&str, String)> = parts
        .iter()
        .filter_map(|(file, mark)| Some((*file, marked(mark)?)))
        .collect();
    let first = known.first();
    if let Some((file, cluster)) = first
        && let Some((other, other_cluster)) = known.iter().find(|(_, id)| id != cluster)
    {
        return Err(ClusterError::Mismatch {
            file: file.into(),
            cluster: cluster.clone(),
            other: other.into(),
            other_cluster: other_cluster.clone(),
        });
    }
    match (&found.store, &found.authority) {
        (Mark::Absent, _) => empty(found)?,
        (_, Mark::Absent) => return Err(ClusterError::NoAuthority),
        (Mark::Unmarked, _) => {
            if let Some((file, cluster)) = first {
                return Err(ClusterError::Unmarked {
                    file: file.into(),
                    cluster: cluster.clone(),
                });
            }
        }
        _ => {}
    }
    Ok(first.map(|(_, id)| id.clone()))
}

/// Without a store: a first start, or one that was cut off before the store was made. Then no agent has worked here, the
/// settings name no cluster yet, and the authority is not of the first version, which made it together with the store.
fn empty(found: &Evidence) -> Result<(), ClusterError> {
    let shows = [
        (found.settings.id().is_some(), "settings.json"),
        (found.agent, "agent"),
        (found.authority == Mark::Unmarked, "pki/ca.crt"),
    ];
    match shows.iter().find(|(shown, _)| *shown) {
        Some((_, file)) => Err(ClusterError::Empty { file: file.into() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str) -> Mark {
        Mark::Of(id.to_owned())
    }

    fn found(settings: Mark, store: Mark, authority: Mark, agent: bool) -> Evidence {
        Evidence {
            settings,
            store,
            authority,
            agent,
        }
    }

    #[test]
    fn what_is_new_and_what_is_known_goes_on() {
        use Mark::{Absent, Unmarked};
        let cases = [
            ("a first start", found(Absent, Absent, Absent, false), None),
            (
                "cut off after the authority",
                found(Absent, Absent, of("a"), false),
                Some("a"),
            ),
            (
                "cut off before the settings",
                found(Absent, of("a"), of("a"), false),
                Some("a"),
            ),
            ("as it stays", found(of("a"), of("a"), of("a"), true), Some("a")),
            ("the first version", found(Absent, Unmarked, Unmarked, true), None),
            (
                "a take-over that was cut off",
                found(Absent, of("a"), Unmarked, true),
                Some("a"),
            ),
            (
                "settings made anew",
                found(Absent, of("a"), of("a"), true),
                Some("a"),
            ),
        ];
        for (what, evidence, expected) in cases {
            assert_eq!(judge(&evidence), Ok(expected.map(str::to_owned)), "{what}");
        }
    }

    #[test]
    fn a_contradiction_and_an_emptiness_are_refused_with_the_way_out() {
        use Mark::{Absent, Unmarked};
        let cases = [
            (
                "an empty store",
                found(of("a"), Absent, of("a"), true),
                "settings.json shows",
            ),
            (
                "settings lost too",
                found(Absent, Absent, of("a"), true),
                "agent shows",
            ),
            (
                "everything but the settings lost",
                found(of("a"), Absent, Absent, false),
                "settings.json shows",
            ),
            (
                "the first version's store lost",
                found(Absent, Absent, Unmarked, false),
                "pki/ca.crt shows",
            ),
            (
                "another's store",
                found(of("a"), of("b"), of("a"), true),
                "store.redb to cluster b",
            ),
            (
                "another's settings",
                found(of("b"), of("a"), of("a"), true),
                "settings.json belongs to cluster b",
            ),
            (
                "another's authority",
                found(Absent, of("a"), of("b"), true),
                "pki/ca.crt belongs to cluster b",
            ),
            (
                "a store of the first version",
                found(of("a"), Unmarked, of("a"), true),
                "names no cluster",
            ),
            (
                "no authority",
                found(of("a"), of("a"), Absent, true),
                "pki/ca.key",
            ),
        ];
        for (what, evidence, expected) in cases {
            let error = judge(&evidence).expect_err(what).to_string();
            assert!(
                error.contains(expected) && error.contains("gantry restore"),
                "{what}: {error}"
            );
        }
    }
}
