//! How much an image may still write: against its own bounds, and against the space that the file system has left.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::limits::Limits;

/// A name and what is known of a file, at least; files take whole blocks (ext4, XFS).
const BLOCK_BYTES: u64 = 4096;
/// The file system is asked for so much, in bytes, before it is written: others write too. No chunk is longer.
const ASK_BYTES: u64 = 1 << 20;
/// Of a file that is copied, held in memory at once.
const CHUNK_BYTES: usize = 128 << 10;

/// What is left of an image's share.
pub(crate) struct Budget {
    dir: OwnedFd,
    limits: Limits,
    bytes_left: u64,
    entries_left: u64,
    asked_bytes: u64,
    chunk: Vec<u8>,
}

impl Budget {
    /// For all that one image writes below `dir`.
    pub(crate) fn new(dir: &Path, limits: &Limits) -> io::Result<Self> {
        let budget = Self {
            dir: File::open(dir)?.into(),
            limits: *limits,
            bytes_left: limits.image_bytes,
            entries_left: limits.image_entries,
            asked_bytes: 0,
            chunk: vec![0; CHUNK_BYTES],
        };
        budget.ask(0)?;
        Ok(budget)
    }

    /// Fails if `bytes` more cannot be there: before something is begun whose size is known.
    pub(crate) fn ask(&self, bytes: u64) -> io::Result<()> {
        let now = rustix::fs::fstatvfs(&self.dir)?;
        let total_bytes = now.f_blocks.saturating_mul(now.f_frsize);
        let free_bytes = now.f_bavail.saturating_mul(now.f_frsize);
        let kept_bytes = self.limits.kept_bytes(total_bytes);
        if free_bytes < kept_bytes.saturating_add(bytes) {
            return Err(full(format!(
                "{} MiB are free where the images are, {} MiB of which are kept for everything else; {} MiB more are needed",
                free_bytes >> 20,
                kept_bytes >> 20,
                (bytes >> 20).max(1),
            )));
        }
        // Some file systems (btrfs, tmpfs without a limit) count no inodes.
        let kept_files = self.limits.kept_files(now.f_files);
        if now.f_files > 0 && now.f_favail < kept_files {
            return Err(full(format!(
                "{} inodes are free where the images are, {kept_files} are kept for everything else",
                now.f_favail
            )));
        }
        Ok(())
    }

    /// One more file, folder or link, without its content.
    pub(crate) fn entry(&mut self) -> io::Result<()> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
            let allowed = self.limits.image_entries;
            io::Error::other(format!("the image has more than {allowed} files"))
        })?;
        self.take(BLOCK_BYTES)
    }

    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            let allowed = self.limits.image_bytes;
            io::Error::other(format!(
                "the image unpacks to more than the {allowed} bytes allowed"
            ))
        })?;
        if self.asked_bytes < bytes {
            self.ask(ASK_BYTES)?;
            self.asked_bytes = ASK_BYTES;
        }
        self.asked_bytes -= bytes;
        Ok(())
    }

    /// Copies all of `from`; returns its length.
    pub(crate) fn copy(&mut self, from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let copied = self.copy_by(&mut chunk, from, to);
        self.chunk = chunk;
        copied
    }

    fn copy_by(&mut self, chunk: &mut [u8], from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
        let mut total_bytes = 0;
        loop {
            let count = match from.read(chunk) {
                Ok(0) => return Ok(total_bytes),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.take(count as u64)?;
            to.write_all(&chunk[..count])?;
            total_bytes += count as u64;
        }
    }
}

fn full(why: String) -> io::Error {
    io::Error::new(ErrorKind::StorageFull, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_bounds_and_leaves_room_for_others() {
        let tmp = tempfile::tempdir().unwrap();
        let limits = Limits {
            image_bytes: 10_000,
            image_entries: 2,
            ..Limits::default()
        };
        let mut budget = Budget::new(tmp.path(), &limits).unwrap();
        budget.entry().unwrap();
        assert_eq!(
            budget.copy(&mut &[1_u8; 5000][..], &mut Vec::new()).unwrap(),
            5000
        );
        let many = budget.copy(&mut &[1_u8; 5000][..], &mut Vec::new()).unwrap_err();
        assert!(many.to_string().contains("10000 bytes"), "{many}");
        let greedy = Limits {
            kept_free_percent: 101,
            kept_free_bytes: u64::MAX,
            ..Limits::default()
        };
        let full = Budget::new(tmp.path(), &greedy).err().unwrap();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert!(
            Budget::new(tmp.path(), &Limits::default())
                .unwrap()
                .ask(1 << 60)
                .is_err()
        );
    }

    #[test]
    fn what_is_kept_is_there_when_the_rest_is_written() {
        let tmp = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount("tmpfs", tmp.path(), "tmpfs", flags, c"size=16m") {
            eprintln!("SKIPPED: a tmpfs cannot be mounted: {error}");
            return;
        }
        let limits = Limits::default();
        let mut budget = Budget::new(tmp.path(), &limits).unwrap();
        let mut file = File::create(tmp.path().join("layer")).unwrap();
        let copied = budget.copy(&mut std::io::repeat(1).take(16 << 20), &mut file);
        let now = rustix::fs::statvfs(tmp.path());
        rustix::mount::unmount(tmp.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(copied.unwrap_err().kind(), ErrorKind::StorageFull);
        let now = now.unwrap();
        let kept_bytes = limits.kept_bytes(now.f_blocks * now.f_frsize);
        assert!(kept_bytes > 1 << 20 && now.f_bavail * now.f_frsize >= kept_bytes);
    }
}
