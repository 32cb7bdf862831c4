//! A file that is replaced as a whole, within space it holds already: two slots that change their names.
//!
//! The new content goes into the spare slot, in its place, and is synced; then the names are exchanged, and that is synced. A
//! slot never gets shorter (blanks fill it up), and holds twice its content: on a full disk the next one fits as well.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;

/// A slot holds at least so much.
const LEAST_BYTES: u64 = 256 << 10;

/// What a replacement does to the disk, step by step.
pub(super) trait Slots {
    /// Length of the spare slot in bytes.
    fn spare_len(&mut self) -> io::Result<u64>;
    /// Overwrites the spare slot from its start.
    fn write_spare(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// What was written to the spare slot survives a power cut.
    fn sync_spare(&mut self) -> io::Result<()>;
    /// The spare slot is the file now, and what was the file is the spare slot.
    fn exchange(&mut self) -> io::Result<()>;
    /// The exchange survives a power cut.
    fn sync_names(&mut self) -> io::Result<()>;
}

/// Replaces the content. When it returns, the new one survives whatever comes; if it fails or is cut off, the old one does.
pub(super) fn replace(slots: &mut impl Slots, mut text: Vec<u8>) -> io::Result<()> {
    // Blanks after a JSON text are part of it (RFC 8259, 2).
    text.push(b'\n');
    let len = usize::try_from(slots.spare_len()?).map_err(io::Error::other)?;
    text.resize(text.len().max(len), b' ');
    slots.write_spare(&text)?;
    slots.sync_spare()?;
    slots.exchange()?;
    slots.sync_names()
}

/// The slots of a file: itself, and `<file>.new` beside it. Mode 0600.
pub(super) struct FileSlots {
    file: PathBuf,
    spare_path: PathBuf,
    spare: File,
}

/// Gives what is in a file's place another name, which says when that was: no two that are set aside have the same.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{}", since_epoch.as_micros()));
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside)?;
    Ok(aside)
}

impl FileSlots {
    /// Makes the spare slot if it is missing, and holds space for twice `bytes` in both as far as the disk has it.
    pub(super) fn open(file: &Path, bytes: usize) -> io::Result<Self> {
        let spare_path = file.with_extension("json.new");
        if fs::symlink_metadata(&spare_path).is_ok_and(|found| !found.is_file()) {
            set_aside(&spare_path)?;
        }
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let spare = options.open(&spare_path)?;
        let bytes = LEAST_BYTES.max(bytes as u64 * 2);
        hold(&spare, bytes);
        if let Ok(current) = File::options().write(true).open(file) {
            hold(&current, bytes);
        }
        Ok(Self {
            file: file.to_owned(),
            spare_path,
            spare,
        })
    }
}

fn hold(slot: &File, bytes: u64) {
    match fallocate(slot, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => {
            tracing::warn!(%error, bytes, "the disk has no space that the ledger could hold ahead of its need")
        }
    }
}

impl Slots for FileSlots {
    fn spare_len(&mut self) -> io::Result<u64> {
        Ok(self.spare.metadata()?.len())
    }

    fn write_spare(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.spare.write_all_at(bytes, 0)
    }

    fn sync_spare(&mut self) -> io::Result<()> {
        self.spare.sync_all()
    }

    fn exchange(&mut self) -> io::Result<()> {
        if !self.file.exists() {
            return fs::rename(&self.spare_path, &self.file);
        }
        match renameat_with(CWD, &self.spare_path, CWD, &self.file, RenameFlags::EXCHANGE) {
            // A file system without it: the old slot is lost, and the next spare one takes new space.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.spare_path, &self.file),
            done => done.map_err(Into::into),
        }
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let dir = self.file.parent().unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// What a disk writes whole or not at all, in bytes.
    const SECTOR: usize = 512;
    /// Runs in the test command; `cargo xtask durability` sets more.
    const RUNS: u64 = 200;

    /// A disk that forgets what was not synced, and tears what it was writing.
    struct Disk {
        durable: [Vec<u8>; 2],
        cached: [Vec<u8>; 2],
        /// Which slot has the file's name: on the disk, and in the cache.
        named: (usize, usize),
        /// Steps until the power fails.
        left: usize,
        syncs: bool,
    }

    impl Disk {
        fn spare(&self) -> usize {
            1 - self.named.1
        }

        fn tick(&mut self) -> io::Result<()> {
            self.left = self
                .left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("the power is off"))?;
            Ok(())
        }

        /// Any sectors of what was not synced, and either of the names.
        fn cut(&mut self, dice: &mut StdRng) {
            for (durable, cached) in self.durable.iter_mut().zip(&mut self.cached) {
                if durable.len() < cached.len() && dice.random() {
                    durable.resize(cached.len(), 0);
                }
                for (at, sector) in durable.chunks_mut(SECTOR).enumerate() {
                    let new = &cached[at * SECTOR..(at * SECTOR + sector.len()).min(cached.len())];
                    if dice.random() {
                        sector[..new.len()].copy_from_slice(new);
                    }
                }
                *cached = durable.clone();
            }
            if dice.random() {
                self.named.0 = self.named.1;
            }
            self.named.1 = self.named.0;
        }
    }

    impl Slots for Disk {
        fn spare_len(&mut self) -> io::Result<u64> {
            Ok(self.cached[self.spare()].len() as u64)
        }

        fn write_spare(&mut self, bytes: &[u8]) -> io::Result<()> {
            // The power may fail before, or after a part of it.
            let spare = self.spare();
            let whole = self.tick();
            let part = if whole.is_ok() {
                bytes.len()
            } else {
                bytes.len() / 2
            };
            let slot = &mut self.cached[spare];
            slot.resize(slot.len().max(part), 0);
            slot[..part].copy_from_slice(&bytes[..part]);
            whole
        }

        fn sync_spare(&mut self) -> io::Result<()> {
            self.tick()?;
            if self.syncs {
                let spare = self.spare();
                self.durable[spare] = self.cached[spare].clone();
            }
            Ok(())
        }

        fn exchange(&mut self) -> io::Result<()> {
            self.tick()?;
            self.named.1 = self.spare();
            Ok(())
        }

        fn sync_names(&mut self) -> io::Result<()> {
            self.tick()?;
            self.named.0 = self.named.1;
            Ok(())
        }
    }

    fn content(disk: &Disk) -> Option<u64> {
        let value: serde_json::Value = serde_json::from_slice(&disk.durable[disk.named.0]).ok()?;
        value["n"].as_u64()
    }

    /// Replaces until the power fails, again and again. False if what was acknowledged is not there then.
    fn run(seed: u64, syncs: bool) -> bool {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut disk = Disk {
            durable: [b"{\"n\":0}".to_vec(), Vec::new()],
            cached: [b"{\"n\":0}".to_vec(), Vec::new()],
            named: (0, 0),
            left: 0,
            syncs,
        };
        let mut acknowledged = 0;
        for _ in 0..20 {
            disk.left = dice.random_range(0..30);
            let mut next = acknowledged;
            loop {
                next += 1;
                let filler = "x".repeat(dice.random_range(0..3000));
                let text = format!("{{\"n\":{next},\"x\":\"{filler}\"}}");
                if replace(&mut disk, text.into_bytes()).is_err() {
                    break;
                }
                acknowledged = next;
            }
            disk.cut(&mut dice);
            match content(&disk) {
                Some(found) if found == acknowledged || found == next => acknowledged = found,
                _ => return false,
            }
        }
        true
    }

    #[test]
    fn durability_of_the_ledger_over_power_cuts() {
        let runs = std::env::var("GANTRY_DURABILITY_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
        assert_eq!(
            (0..runs).find(|seed| !run(*seed, true)),
            None,
            "this seed loses a ledger"
        );
    }

    /// The control: where a sync does nothing, the same runs lose one.
    #[test]
    fn durability_is_missed_on_a_disk_that_does_not_sync() {
        assert!((0..20).any(|seed| !run(seed, false)));
    }

    /// On a disk that others have filled; a tmpfs of its own (needs root).
    #[test]
    fn a_full_disk_stops_others_and_not_the_ledger() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: mounting a tmpfs needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(
            none,
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=2m"),
        )
        .unwrap();
        let file = dir.path().join("ledger.json");
        let save = |size: usize| {
            let text = format!("{{\"x\":\"{}\"}}", "y".repeat(size)).into_bytes();
            FileSlots::open(&file, text.len()).and_then(|mut slots| replace(&mut slots, text))
        };
        let checked = || {
            save(1000)?;
            save(1000)?;
            let mut filler = File::create(dir.path().join("filler"))?;
            while io::Write::write(&mut filler, &[1; 4096]).is_ok() {}
            assert!(
                fs::write(dir.path().join("another"), [1; 4096]).is_err(),
                "the disk is full"
            );
            (0..1000).try_for_each(|n| save(1000 + n * 100))
        };
        let done = checked();
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        done.unwrap();
    }
}
