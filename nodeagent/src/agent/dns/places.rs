//! Who may have how much under way at once. Pure: so much for each source and so much for all. Where all is taken, whoever has most
//! gives way: first the namespace, then the pod of it, and there the oldest.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Source {
    /// Whose sources count together.
    pub(super) group: Group,
    /// The address; the same for all that are unknown.
    pub(super) address: IpAddr,
}

/// See [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Group {
    /// Pods of one namespace.
    Namespace(Arc<str>),
    /// The node itself.
    Host,
    /// Addresses of nobody here.
    Unknown,
}

impl Source {
    /// All that are unknown are one: none of them can have the others' share.
    pub(super) const UNKNOWN: Self = Self {
        group: Group::Unknown,
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
}

/// So many of something for each source, and so many in all.
pub(super) struct Places {
    each: usize,
    all: usize,
    /// Whoever has most gives way; else whoever comes late goes without.
    give_way: bool,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    count: usize,
    /// By age, for each source of each group.
    groups: HashMap<Group, HashMap<IpAddr, BTreeMap<u64, CancellationToken>>>,
    next: u64,
}

/// One of them; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    of: Source,
    number: u64,
    /// Cancelled when it is somebody else's.
    pub(super) lost: CancellationToken,
}

impl Places {
    pub(super) fn new(each: usize, all: usize, give_way: bool) -> Arc<Self> {
        Arc::new(Self {
            each,
            all,
            give_way,
            taken: Mutex::default(),
        })
    }

    /// A place, if the source has not all of its own, and there is one or somebody who has more gives way.
    pub(super) fn take(self: &Arc<Self>, of: &Source) -> Option<Place> {
        let mut taken = self.taken();
        if taken.of_source(of) >= self.each {
            return None;
        }
        if taken.count >= self.all {
            let victim = taken.victim(of).filter(|_| self.give_way)?;
            taken.remove_oldest(&victim);
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.count += 1;
        let sources = taken.groups.entry(of.group.clone()).or_default();
        sources
            .entry(of.address)
            .or_default()
            .insert(number, lost.clone());
        Some(Place {
            places: self.clone(),
            of: of.clone(),
            number,
            lost,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of_source(&self, source: &Source) -> usize {
        let sources = self.groups.get(&source.group);
        sources
            .and_then(|sources| sources.get(&source.address))
            .map_or(0, BTreeMap::len)
    }

    fn of_group(&self, group: &Group) -> usize {
        let sources = self.groups.get(group);
        sources.map_or(0, |sources| sources.values().map(BTreeMap::len).sum())
    }

    /// Who gives way to whom: whoever has no less than the other even then, so that nothing goes to and fro.
    fn victim(&self, to: &Source) -> Option<Source> {
        let most = self.groups.keys().max_by_key(|group| self.of_group(group))?;
        // Its own group is the one where no other has more.
        let group = if self.of_group(most) >= self.of_group(&to.group) + 2 {
            most
        } else {
            &to.group
        };
        let sources = self.groups.get(group)?;
        let (address, places) = sources.iter().max_by_key(|(_, places)| places.len())?;
        (group != &to.group || places.len() >= self.of_source(to) + 2).then(|| Source {
            group: group.clone(),
            address: *address,
        })
    }

    fn remove_oldest(&mut self, of: &Source) {
        let sources = self.groups.get(&of.group);
        let oldest = sources
            .and_then(|sources| sources.get(&of.address)?.first_key_value())
            .map(|(number, lost)| (*number, lost.clone()));
        if let Some((number, lost)) = oldest {
            self.remove(of, number);
            lost.cancel();
        }
    }

    /// Nothing, if it was lost before.
    fn remove(&mut self, of: &Source, number: u64) {
        let Some(sources) = self.groups.get_mut(&of.group) else {
            return;
        };
        let Some(places) = sources.get_mut(&of.address) else {
            return;
        };
        self.count -= usize::from(places.remove(&number).is_some());
        if places.is_empty() {
            sources.remove(&of.address);
        }
        if sources.is_empty() {
            self.groups.remove(&of.group);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.of, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(namespace: &str, last: u8) -> Source {
        Source {
            group: Group::Namespace(namespace.into()),
            address: IpAddr::from([10, 0, 0, last]),
        }
    }

    fn of_pods(places: &Arc<Places>, namespace: &str, pods: u8, each: usize) -> Vec<Place> {
        let all = (0..pods).flat_map(|pod| std::iter::repeat_n(pod, each));
        all.filter_map(|pod| places.take(&source(namespace, pod)))
            .collect()
    }

    fn lost(places: &[Place]) -> usize {
        places.iter().filter(|place| place.lost.is_cancelled()).count()
    }

    #[test]
    fn places_are_bounded_for_each_and_for_all() {
        let places = Places::new(2, 3, true);
        let (one, two) = (source("a", 1), source("a", 2));
        let held = [places.take(&one), places.take(&one)];
        assert!(held.iter().all(Option::is_some) && places.take(&one).is_none());
        let third = places.take(&two);
        assert!(third.is_some() && places.take(&two).is_none(), "all are taken");
        drop(held);
        assert!(places.take(&two).is_some() && places.taken().groups.len() == 1);
        drop(third);
        let taken = places.taken();
        assert!(taken.groups.is_empty() && taken.count == 0);
    }

    #[test]
    fn a_namespace_of_many_pods_gives_way_to_another_and_keeps_its_share() {
        let places = Places::new(16, 256, true);
        let many = of_pods(&places, "many", 17, 16);
        // The last pod has a share too: its neighbours of the same namespace have given way.
        assert_eq!((many.len() - lost(&many), places.taken().count), (256, 256));
        assert_eq!(places.taken().of_source(&source("many", 16)), 15);
        let neighbour = of_pods(&places, "neighbour", 1, 16);
        assert_eq!((neighbour.len(), lost(&neighbour)), (16, 0));
        // However often they come back.
        let again = of_pods(&places, "many", 17, 16);
        assert_eq!(lost(&neighbour), 0);
        let other = of_pods(&places, "other", 17, 16);
        assert_eq!((other.len() - lost(&other), lost(&neighbour)), (120, 0));
        drop((many, again));
        assert_eq!(places.taken().count, 136);
    }

    #[test]
    fn the_oldest_goes_and_whoever_has_most_itself_goes_without() {
        let places = Places::new(16, 4, true);
        let held = of_pods(&places, "a", 1, 4);
        assert!(places.take(&source("a", 0)).is_none(), "nobody has more");
        let other = places.take(&source("b", 1));
        assert!(other.is_some() && held[0].lost.is_cancelled() && lost(&held) == 1);
        let without = Places::new(16, 4, false);
        let _held = of_pods(&without, "a", 1, 4);
        assert!(without.take(&source("b", 1)).is_none());
    }
}
