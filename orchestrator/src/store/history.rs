//! The keys with their versions, in memory. Pure: applies transactions, answers reads, forgets.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::types::{Compare, Event, Listing, Op, Range, Revision, StoreError, Txn, Version};

/// How much of the past: what is kept for watchers and for lists at a revision, what is handed out at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Changes.
    pub events: usize,
    /// Bytes of values in those changes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events: 50_000,
            bytes: 64 << 20,
        }
    }
}

/// One write or removal of a key: what is logged.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub key: Arc<str>,
    pub revision: Revision,
    pub create_revision: Revision,
    pub version: u64,
    /// `None`: removed.
    pub value: Option<Bytes>,
}

impl Record {
    pub fn alive(&self) -> Option<Version> {
        self.value.as_ref().map(|value| Version {
            key: self.key.clone(),
            value: value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision,
            version: self.version,
        })
    }
}

/// What a change counts for in the history.
fn logged_bytes(event: &Event) -> usize {
    bytes(&event.key, event.after.as_ref().map(|after| &after.value))
}

fn bytes(key: &str, value: Option<&Bytes>) -> usize {
    value.map_or(0, Bytes::len) + key.len() + 64
}

/// Keys of transactions that are decided but not on disk yet.
#[derive(Default)]
pub(super) struct Pending {
    latest: HashMap<Arc<str>, Option<Version>>,
    /// What to log and then apply, in order.
    pub records: Vec<Record>,
    /// Revision after the last of them.
    pub revision: Revision,
}

impl Pending {
    /// How much the history grows by them.
    pub fn size(&self) -> Limits {
        let sizes = self.records.iter().map(|r| bytes(&r.key, r.value.as_ref()));
        Limits {
            events: self.records.len(),
            bytes: sizes.sum(),
        }
    }
}

/// All keys, all remembered versions.
#[derive(Debug)]
pub(super) struct History {
    keys: BTreeMap<Arc<str>, Vec<Record>>,
    log: VecDeque<Arc<Event>>,
    log_bytes: usize,
    pub revision: Revision,
    pub compacted: Revision,
}

impl History {
    pub fn new(revision: Revision, compacted: Revision) -> Self {
        Self {
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            revision,
            compacted,
        }
    }

    /// Nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.revision == Revision(1) && self.keys.is_empty()
    }

    /// The last record of every key that is there.
    pub fn live(&self) -> Vec<Record> {
        let last = self.keys.values().filter_map(|versions| versions.last());
        last.filter(|record| record.value.is_some()).cloned().collect()
    }

    fn latest(&self, key: &str) -> Option<Version> {
        self.keys.get(key)?.last()?.alive()
    }

    fn at(versions: &[Record], at: Revision) -> Option<Version> {
        let end = versions.partition_point(|r| r.revision <= at);
        versions[..end].last()?.alive()
    }

    fn check_revision(&self, at: Revision) -> Result<(), StoreError> {
        if at < self.compacted {
            return Err(StoreError::Compacted {
                asked: at,
                through: self.compacted,
            });
        }
        if at > self.revision {
            return Err(StoreError::Future {
                asked: at,
                newest: self.revision,
            });
        }
        Ok(())
    }

    pub fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Version>, StoreError> {
        let Some(at) = at else { return Ok(self.latest(key)) };
        self.check_revision(at)?;
        Ok(self.keys.get(key).and_then(|versions| Self::at(versions, at)))
    }

    pub fn list(&self, range: &Range) -> Result<Listing, StoreError> {
        let at = range.at.unwrap_or(self.revision);
        self.check_revision(at)?;
        let start = match &range.after {
            Some(after) if after.as_str() >= range.prefix.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(range.prefix.as_str()),
        };
        let mut found = self
            .keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&range.prefix))
            .filter_map(|(_, versions)| Self::at(versions, at));
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let items: Vec<_> = found.by_ref().take(limit).collect();
        Ok(Listing {
            revision: at,
            items,
            remaining: found.count(),
        })
    }

    /// Decides a transaction on top of those that are pending; on success its records are pending too.
    pub fn decide(
        &self,
        pending: &mut Pending,
        txn: Txn,
    ) -> Result<(Revision, Vec<Option<Version>>), StoreError> {
        let now = |pending: &Pending, key: &str| match pending.latest.get(key) {
            Some(version) => version.clone(),
            None => self.latest(key),
        };
        for (key, compare) in &txn.compare {
            let found = now(pending, key);
            let holds = match compare {
                Compare::Any => true,
                Compare::Exists => found.is_some(),
                Compare::Absent => found.is_none(),
                Compare::At(revision) => found.as_ref().is_some_and(|v| v.mod_revision == *revision),
            };
            if !holds {
                return Err(StoreError::Conflict {
                    key: key.clone(),
                    found,
                });
            }
        }
        let mut seen = HashSet::new();
        if let Some((key, _)) = txn.ops.iter().find(|(key, _)| !seen.insert(key.as_str())) {
            return Err(StoreError::Twice { key: key.clone() });
        }
        let before = pending.revision.max(self.revision);
        let revision = Revision(before.0 + 1);
        let mut changed = false;
        let mut after = Vec::with_capacity(txn.ops.len());
        for (key, op) in txn.ops {
            let old = now(pending, &key);
            let value = match op {
                Op::Put(value) => Some(value),
                Op::Delete if old.is_none() => {
                    after.push(None);
                    continue;
                }
                Op::Delete => None,
            };
            let record = Record {
                key: key.into(),
                revision,
                create_revision: old.as_ref().map_or(revision, |v| v.create_revision),
                version: old.as_ref().map_or(1, |v| v.version + 1),
                value,
            };
            changed = true;
            after.push(record.alive());
            pending.latest.insert(record.key.clone(), record.alive());
            pending.records.push(record);
        }
        pending.revision = if changed { revision } else { before };
        Ok((pending.revision, after))
    }

    /// Makes a logged record part of the state. Records come in order of revision.
    pub fn apply(&mut self, record: Record) {
        let versions = self.keys.entry(record.key.clone()).or_default();
        let before = versions.last().and_then(Record::alive);
        self.revision = self.revision.max(record.revision);
        if record.revision > self.compacted {
            let event = Event {
                key: record.key.clone(),
                revision: record.revision,
                after: record.alive(),
                before,
                wire: OnceLock::new(),
                looked: OnceLock::new(),
            };
            self.log_bytes += logged_bytes(&event);
            self.log.push_back(Arc::new(event));
        }
        versions.push(record);
    }

    /// Where to compact to, if the history is longer than it may be: so many changes further, and so many bytes. What is over beyond
    /// that goes later.
    pub fn over(&self, limits: Limits, pace: Limits) -> Option<Revision> {
        let (mut events, mut bytes) = (0, 0);
        let mut through = None;
        for event in &self.log {
            let (left, left_bytes) = (self.log.len() - events, self.log_bytes.saturating_sub(bytes));
            let within = left <= limits.events && left_bytes <= limits.bytes;
            if within || (events >= pace.events && bytes >= pace.bytes) {
                break;
            }
            events += 1;
            bytes += logged_bytes(event);
            through = Some(event.revision);
        }
        through
    }

    /// Forgets what nobody can ask for any more; returns the records to drop from the log.
    pub fn compact(&mut self, through: Revision) -> Result<Vec<(Revision, Arc<str>)>, StoreError> {
        self.check_revision(through)?;
        let mut dropped = Vec::new();
        let mut touched: HashSet<Arc<str>> = HashSet::new();
        while let Some(event) = self.log.front().filter(|event| event.revision <= through) {
            touched.insert(event.key.clone());
            self.log_bytes = self.log_bytes.saturating_sub(logged_bytes(event));
            self.log.pop_front();
        }
        for key in touched {
            let Some(versions) = self.keys.get_mut(&key) else {
                continue;
            };
            let end = versions.partition_point(|r| r.revision <= through);
            let keep_from = match versions[..end].last() {
                Some(last) if last.value.is_some() => end - 1,
                _ => end,
            };
            dropped.extend(versions.drain(..keep_from).map(|r| (r.revision, r.key)));
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
        self.compacted = through;
        Ok(dropped)
    }

    /// Events above `after` under a prefix, until they come to a batch; and how far the search came.
    pub fn events(
        &self,
        prefix: &str,
        after: Revision,
        batch: Limits,
    ) -> Result<(Vec<Arc<Event>>, Revision), StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted {
                asked: after,
                through: self.compacted,
            });
        }
        let start = self.log.partition_point(|event| event.revision <= after);
        let mut found: Vec<Arc<Event>> = Vec::new();
        let mut bytes = 0;
        for event in self.log.range(start..) {
            // A revision is never split: a watcher resumes between revisions.
            if let Some(last) = found.last()
                && (found.len() >= batch.events || bytes >= batch.bytes)
                && last.revision != event.revision
            {
                let through = last.revision;
                return Ok((found, through));
            }
            if event.key.starts_with(prefix) {
                bytes += event
                    .after
                    .as_ref()
                    .or(event.before.as_ref())
                    .map_or(0, |v| v.value.len());
                found.push(event.clone());
            }
        }
        Ok((found, self.revision))
    }
}
