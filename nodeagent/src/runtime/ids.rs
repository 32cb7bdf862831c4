//! Ids of pods that have their own: one range each, on record as a link `ids/<first id>` to the pod's uid in the agent's directory. To
//! make the link is to have the range, so two pods never get the same one; it stays over restarts of agent and node, as files in
//! the pod's volumes and layers do.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::RuntimeError;

/// Ids of one pod, as many as in Kubernetes: all that images use.
pub const IDS: u32 = 1 << 16;
/// The ids that are given out: those below are accounts of the host, ranges of `/etc/subuid` and what systemd gives to containers; above
/// is what systemd has for images of others, and numbers that some programs take for negative. Source: systemd, UIDS-GIDS.md.
const GIVEN: Range<u32> = 0x7000_0000..0x7ffe_0000;
/// How many ranges there are.
const RANGES: u32 = (GIVEN.end - GIVEN.start) / IDS;

/// The ranges of this node.
#[derive(Clone, Debug)]
pub struct IdRanges {
    dir: PathBuf,
}

impl IdRanges {
    /// In the agent's directory.
    pub fn new(agent_dir: &Path) -> Self {
        Self {
            dir: agent_dir.join("ids"),
        }
    }

    /// The first id of a pod's range: the one that it has, else a free one.
    pub fn claim(&self, uid: &str) -> Result<u32, RuntimeError> {
        let failed = |e| RuntimeError::io("write down ids in", &self.dir, e);
        let claims = self.claims()?;
        if let Some((first, _)) = claims.iter().find(|(_, owner)| owner == uid) {
            return Ok(*first);
        }
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let mut taken: Vec<Range<u32>> = claims.iter().map(|(first, _)| range(*first)).collect();
        taken.extend(of_the_host(Path::new("/etc")));
        while let Some(first) = choose(uid, &taken) {
            match symlink(uid, self.dir.join(first.to_string())) {
                // Another pod was quicker.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => taken.push(range(first)),
                made => return made.map(|()| first).map_err(failed),
            }
        }
        Err(RuntimeError::Refused(format!(
            "this node has no ids left for a pod with `hostUsers: false`: all {RANGES} ranges from {} to {} belong to pods or to accounts of the host",
            GIVEN.start,
            GIVEN.end - 1
        )))
    }

    /// Gives back what a pod has; it may have none.
    pub fn free(&self, uid: &str) -> Result<(), RuntimeError> {
        for (first, _) in self.claims()?.iter().filter(|(_, owner)| owner == uid) {
            let path = self.dir.join(first.to_string());
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::io("remove", &path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// First ids, and whose they are.
    fn claims(&self) -> Result<Vec<(u32, String)>, RuntimeError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| RuntimeError::io("list", &self.dir, e))?,
        };
        let claim = |entry: io::Result<fs::DirEntry>| {
            let path = entry.ok()?.path();
            let owner = fs::read_link(&path).ok()?.to_str()?.to_owned();
            Some((path.file_name()?.to_str()?.parse().ok()?, owner))
        };
        // What is no claim was made by nobody.
        Ok(entries.filter_map(claim).collect())
    }
}

/// Whether an id is of some pod's range.
pub(super) fn is_given(id: u32) -> bool {
    GIVEN.contains(&id)
}

fn range(first: u32) -> Range<u32> {
    first..first.saturating_add(IDS)
}

/// A range that overlaps with none that are taken. Where it is looked for first follows from the pod, so that what another pod has left
/// on a volume of the host belongs to nobody for a while, and two agents on one machine rarely choose the same.
fn choose(uid: &str, taken: &[Range<u32>]) -> Option<u32> {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let begin = u32::try_from(hasher.finish() % u64::from(RANGES)).unwrap_or(0);
    let free = |first: &u32| {
        let own = range(*first);
        taken
            .iter()
            .all(|other| own.end <= other.start || other.end <= own.start)
    };
    (0..RANGES)
        .map(|n| GIVEN.start + (begin + n) % RANGES * IDS)
        .find(free)
}

/// Ids of the host's accounts and what it has given out to them (`passwd(5)`, `group(5)`, `subuid(5)`).
fn of_the_host(etc: &Path) -> Vec<Range<u32>> {
    let mut found = Vec::new();
    for (file, has_count) in [
        ("passwd", false),
        ("group", false),
        ("subuid", true),
        ("subgid", true),
    ] {
        let text = fs::read_to_string(etc.join(file)).unwrap_or_default();
        for line in text.lines() {
            let mut fields = line.split(':');
            let place = if has_count { 1 } else { 2 };
            let Some(first) = fields.nth(place).and_then(|id| id.parse::<u32>().ok()) else {
                continue;
            };
            let count = match has_count {
                true => fields.next().and_then(|n| n.trim().parse().ok()).unwrap_or(0),
                false => 1,
            };
            found.push(first..first.saturating_add(count));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_keeps_its_range_and_no_other_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = IdRanges::new(dir.path());
        let first = ranges.claim("a").unwrap();
        assert_eq!(IdRanges::new(dir.path()).claim("a").unwrap(), first);
        let mut all: Vec<u32> = (0..50).map(|n| ranges.claim(&format!("p{n}")).unwrap()).collect();
        all.push(first);
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[1] - two[0] >= IDS), "{all:?}");
        assert!(
            all.iter()
                .all(|id| GIVEN.contains(id) && GIVEN.contains(&(id + IDS - 1)))
        );
        ranges.free("a").unwrap();
        ranges.free("a").unwrap();
        assert_eq!(ranges.claims().unwrap().len(), 50);
        assert_eq!(
            ranges.claim("a").unwrap(),
            first,
            "it is where it was looked for first"
        );
    }

    #[test]
    fn what_overlaps_is_left_out_and_the_last_is_found() {
        let (begin, end) = (GIVEN.start, GIVEN.end);
        let last = end - IDS;
        let half = begin + IDS * 7;
        let mut taken = vec![half..last, begin..half];
        assert_eq!(choose("a", &taken), Some(last));
        // One account in the middle of a range takes it.
        taken.push(last + 5..last + 6);
        assert_eq!(choose("a", &taken), None);
    }

    #[test]
    fn accounts_of_the_host_are_known() {
        let etc = tempfile::tempdir().unwrap();
        fs::write(
            etc.path().join("passwd"),
            "root:x:0:0::/:/bin/sh\nbad\nhigh:x:1879048200:5::/:\n",
        )
        .unwrap();
        fs::write(etc.path().join("subuid"), "user:100000:65536\nuser:x:1\n").unwrap();
        let found = of_the_host(etc.path());
        assert_eq!(found, [0..1, 1_879_048_200..1_879_048_201, 100_000..165_536]);
    }
}
