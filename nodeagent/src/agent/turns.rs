//! Who of many pods is worked on next: tenants take turns, and within one its groups of pods do. Whoever has hundreds of pods
//! started or stopped at once holds up only those.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Whose work it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// The pods' namespace.
    pub(super) tenant: String,
    /// What the pods of one owner have in common: their labels.
    pub(super) labels: BTreeMap<String, String>,
}

/// Places to work at. Cheap to clone.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Line>>);

/// A place; free again when dropped.
pub(super) struct Turn {
    /// `None` once it has been passed on.
    turns: Option<Turns>,
}

struct Line {
    free: usize,
    waiting: Vec<Waiting>,
    /// When a tenant, and when a group that has others waiting, had its last turn.
    tenants: BTreeMap<String, u64>,
    groups: BTreeMap<Group, u64>,
    turns: u64,
}

struct Waiting {
    group: Group,
    call: oneshot::Sender<Turn>,
}

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Line {
            free: places,
            waiting: Vec::new(),
            tenants: BTreeMap::new(),
            groups: BTreeMap::new(),
            turns: 0,
        })))
    }

    /// A place, when it is the group's turn. Work of one group is done in the order in which it came.
    pub(super) async fn enter(&self, group: Group) -> Turn {
        let (call, called) = oneshot::channel();
        {
            let mut line = self.line();
            line.waiting.push(Waiting { group, call });
            if line.free > 0 {
                line.free -= 1;
                drop(line);
                drop(self.turn());
            }
        }
        // A line that is waited in is never dropped.
        called.await.unwrap_or(Turn { turns: None })
    }

    fn turn(&self) -> Turn {
        Turn {
            turns: Some(self.clone()),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        loop {
            let Some(next) = turns.line().next() else { return };
            match next.send(turns.turn()) {
                Ok(()) => return,
                // It went away: the place goes to the one after it.
                Err(mut turn) => turn.turns = None,
            }
        }
    }
}

impl Line {
    /// Whose turn it is now; without anybody the place is free.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let last = |waiting: &Waiting| {
            let tenant = self.tenants.get(&waiting.group.tenant).copied().unwrap_or(0);
            (tenant, self.groups.get(&waiting.group).copied().unwrap_or(0))
        };
        let Some((at, _)) = self.waiting.iter().enumerate().min_by_key(|(_, w)| last(w)) else {
            self.free += 1;
            self.tenants.clear();
            self.groups.clear();
            return None;
        };
        let Waiting { group, call } = self.waiting.remove(at);
        self.turns += 1;
        self.tenants.insert(group.tenant.clone(), self.turns);
        self.groups.insert(group, self.turns);
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(tenant: &str, app: &str) -> Group {
        Group {
            tenant: tenant.to_owned(),
            labels: [("app".to_owned(), app.to_owned())].into(),
        }
    }

    #[tokio::test]
    async fn a_flood_holds_up_only_itself() {
        let turns = Turns::new(1);
        let held = turns.enter(group("a", "flood")).await;
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let flood = (0..100).map(|_| group("a", "flood"));
        let others = [group("a", "small"), group("b", "x"), group("b", "y")];
        for group in flood.chain(others) {
            let (turns, done) = (turns.clone(), done.clone());
            tokio::spawn(async move {
                let _turn = turns.enter(group.clone()).await;
                let _ = done.send(group);
            });
            tokio::task::yield_now().await;
        }
        drop((held, done));
        let mut seen = Vec::new();
        while let Some(group) = order.recv().await {
            seen.push(group);
        }
        assert_eq!(seen.len(), 103);
        let place = |wanted: &Group| seen.iter().position(|g| g == wanted).unwrap();
        for small in [group("a", "small"), group("b", "x"), group("b", "y")] {
            assert!(place(&small) < 6, "{small:?} is number {}", place(&small));
        }
    }

    #[tokio::test]
    async fn a_place_is_never_lost() {
        let turns = Turns::new(2);
        let (one, two) = (
            turns.enter(group("a", "x")).await,
            turns.enter(group("a", "x")).await,
        );
        let mut gone = Box::pin(turns.enter(group("a", "y")));
        assert!(futures_poll(&mut gone).await);
        drop(gone);
        drop((one, two));
        assert_eq!(turns.line().free, 2);
        let _again = (
            turns.enter(group("a", "x")).await,
            turns.enter(group("a", "x")).await,
        );
        assert_eq!(turns.line().free, 0);
    }

    /// Polls once; true if it waits.
    async fn futures_poll(future: &mut (impl Future<Output = Turn> + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
