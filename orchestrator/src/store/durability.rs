//! Power cuts on a disk that forgets what was not synced, and tears what it was writing: what was acknowledged is there.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

use super::disk::Disk;
use super::history::{History, Pending};
use super::types::{Compare, Op, Txn};

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;
/// Runs in the test command; `cargo xtask durability` sets more.
const RUNS: u64 = 25;
/// Writes of a run before its power cut, at most.
const WRITES: usize = 40;

/// A disk with a cache.
#[derive(Debug)]
struct Platter {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Since the last sync: what was written where; `None`: the length was set.
    unsynced: Vec<(usize, Option<Vec<u8>>)>,
    /// Operations until the power fails.
    left: usize,
    /// Without this a disk that takes "sync" for a hint shows that the test finds losses.
    syncs: bool,
}

#[derive(Clone, Debug)]
struct Power(Arc<Mutex<Platter>>);

impl Power {
    fn on(durable: Vec<u8>, left: usize, syncs: bool) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            cached: durable.clone(),
            durable,
            unsynced: Vec::new(),
            left,
            syncs,
        })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn tick(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        if platter.left == 0 {
            return Err(io::Error::other("the power is off"));
        }
        platter.left -= 1;
        Ok(platter)
    }

    /// What is on the disk after the cut: any of what was not synced, the last of it torn at a sector.
    fn cut(&self, dice: &mut StdRng) -> Vec<u8> {
        let mut platter = self.platter();
        let mut disk = std::mem::take(&mut platter.durable);
        let unsynced = std::mem::take(&mut platter.unsynced);
        let last = unsynced.len();
        for (number, (at, data)) in unsynced.into_iter().enumerate() {
            let Some(data) = data else {
                if dice.random() {
                    disk.resize(at, 0);
                }
                continue;
            };
            for (sector, part) in data.chunks(SECTOR).enumerate() {
                let torn = number + 1 == last && dice.random();
                let at = at + sector * SECTOR;
                if !torn && dice.random() && at + part.len() <= disk.len() {
                    disk[at..at + part.len()].copy_from_slice(part);
                }
            }
        }
        disk
    }
}

impl StorageBackend for Power {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let at = usize::try_from(offset).unwrap();
        let found = platter.cached.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.tick()?;
        let len = usize::try_from(len).unwrap();
        platter.cached.resize(len, 0);
        platter.unsynced.push((len, None));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.tick()?;
        if platter.syncs {
            platter.durable = platter.cached.clone();
            platter.unsynced.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.tick()?;
        let at = usize::try_from(offset).unwrap();
        platter.cached[at..at + data.len()].copy_from_slice(data);
        platter.unsynced.push((at, Some(data.to_vec())));
        Ok(())
    }
}

type Keys = BTreeMap<String, Vec<u8>>;

fn keys(history: &History) -> Keys {
    let live = history.live().into_iter();
    live.map(|r| (r.key.to_string(), r.value.unwrap().to_vec()))
        .collect()
}

/// Writes until the power fails, opens what is left: it must hold all that was acknowledged, and beyond that at most the write
/// that was under way. `Err` tells what was lost.
fn run(seed: u64, syncs: bool) -> Result<(), String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let whole = Power::on(Vec::new(), usize::MAX, true);
    drop(Disk::on(whole.clone(), Some("c")).map_err(|e| format!("{e:?}"))?);
    let mut image = whole.platter().durable.clone();
    // Power may fail while what a former cut left is mended.
    for cut in 0..3 {
        let power = Power::on(image, dice.random_range(1..400), syncs);
        let mut acknowledged = None;
        let mut under_way = None;
        if let Ok(mut disk) = Disk::on(power.clone(), None)
            && let Ok(mut history) = disk.load()
        {
            acknowledged = Some(keys(&history));
            for _ in 0..WRITES {
                let mut pending = Pending::default();
                let size = if dice.random_ratio(1, 8) { 20_000 } else { 200 };
                let key = format!("/k/{}", dice.random_range(0..12));
                let value = vec![dice.random::<u8>(); dice.random_range(0..size)];
                let op = if dice.random_ratio(1, 5) {
                    Op::Delete
                } else {
                    Op::Put(value.into())
                };
                history
                    .decide(&mut pending, Txn::one(&key, Compare::Any, op))
                    .unwrap();
                let records = pending.records;
                let known = history.revision;
                let written = disk.write(&records, &[], None, known);
                records.into_iter().for_each(|r| history.apply(r));
                under_way = Some(keys(&history));
                if written.is_err() {
                    break;
                }
                acknowledged = under_way.take();
            }
        }
        image = power.cut(&mut dice);
        if let Some(acknowledged) = acknowledged {
            let after = Power::on(image.clone(), usize::MAX, true);
            let disk = Disk::on(after.clone(), None).map_err(|e| format!("seed {seed}, cut {cut}: {e:?}"))?;
            let found = keys(
                &disk
                    .load()
                    .map_err(|e| format!("seed {seed}, cut {cut}: {e:?}"))?,
            );
            if found != acknowledged && Some(&found) != under_way.as_ref() {
                return Err(format!("seed {seed}, cut {cut}: acknowledged writes are lost"));
            }
        }
    }
    Ok(())
}

fn runs() -> u64 {
    std::env::var("GANTRY_DURABILITY_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number"))
}

#[test]
fn durability_of_the_store_over_power_cuts() {
    for seed in 0..runs() {
        run(seed, true).unwrap();
    }
}

/// The control: on a disk that does not sync the same runs lose writes, or the whole store.
#[test]
fn durability_is_missed_on_a_disk_that_does_not_sync() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let lost = (0..20).filter(|seed| !matches!(std::panic::catch_unwind(|| run(*seed, false)), Ok(Ok(()))));
    let lost = lost.count();
    std::panic::set_hook(quiet);
    assert!(lost > 0);
}
