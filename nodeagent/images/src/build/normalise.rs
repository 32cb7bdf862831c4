//! Makes a base layer out of mmdebstrap's archive: sorted, one time for all, without what differs between two runs
//! or what no container needs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use tar::EntryType;

use super::Job;
use super::layer::{Layer, LayerWriter};
use crate::archive::{self, Meta};
use crate::limits::Limits;

/// Folders of which only the folder itself stays.
const EMPTIED: [&str; 8] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "var/tmp",
    "etc/apt/sources.list.d",
    "var/lib/apt/lists",
];
/// Folders that keep their folders and lose everything else: programs expect the folders.
const HOLLOWED: [&str; 2] = ["var/log", "var/cache"];
/// Traces of the build host, of the time of the build, or caches.
const DROPPED: [&str; 17] = [
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/machine-id",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/status-old",
    "var/lib/systemd/catalog/database",
    "var/lib/systemd/random-seed",
];
/// The build host's; the runtime puts its own on top of the empty files.
const BLANKED: [&str; 2] = ["etc/hostname", "etc/resolv.conf"];

/// What the base layer holds, by path without leading slash.
#[derive(Default)]
pub(super) struct Base {
    /// All entries.
    pub entries: BTreeMap<Vec<u8>, Meta>,
}

impl Job<'_> {
    /// Reads the archive twice: for the order, and for the data.
    pub(super) fn normalise(&self, archive: &Path) -> io::Result<(Layer, Base)> {
        let mut base = Base {
            entries: read_entries(File::open(archive)?)?,
        };
        let trim: Vec<&str> = self
            .recipe
            .trim
            .iter()
            .map(|t| t.trim_start_matches('/'))
            .collect();
        base.entries = keep(std::mem::take(&mut base.entries), &trim);
        let mut source = File::open(archive)?;
        let mut writer = LayerWriter::create(self.scratch.path())?;
        for meta in base.entries.values() {
            source.seek(SeekFrom::Start(meta.data_offset))?;
            writer.append(
                meta,
                BufReader::with_capacity(1 << 16, (&source).take(meta.size_bytes)),
            )?;
        }
        let what = match &self.recipe.debian {
            Some(d) => format!("Debian {} ({}) with {}", d.suite, d.variant, d.packages.join(" ")),
            None => String::new(),
        };
        Ok((writer.finish(what)?, base))
    }
}

fn read_entries(file: File) -> io::Result<BTreeMap<Vec<u8>, Meta>> {
    let mut entries = BTreeMap::new();
    archive::for_each::<_, io::Error>(
        BufReader::with_capacity(1 << 17, file),
        &Limits::default(),
        |mut meta, _| {
            meta.path = clean(&meta.path);
            if meta.kind == EntryType::Link {
                meta.link = meta.link.map(|l| clean(&l));
            }
            entries.insert(meta.path.clone(), meta);
            Ok(())
        },
    )?;
    Ok(entries)
}

/// `./usr/bin/` to `usr/bin`.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|p| !matches!(*p, b"" | b"."))
        .collect();
    parts.join(&b'/')
}

/// Drops what must not stay, then gives each hard-linked file's data to the first of its names.
fn keep(mut entries: BTreeMap<Vec<u8>, Meta>, trim: &[&str]) -> BTreeMap<Vec<u8>, Meta> {
    let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for meta in entries.values().filter(|m| m.kind == EntryType::Link) {
        groups
            .entry(meta.link.clone().unwrap_or_default())
            .or_default()
            .push(meta.path.clone());
    }
    let mut data: BTreeMap<Vec<u8>, Meta> = BTreeMap::new();
    for target in groups.keys() {
        data.extend(entries.get(target).map(|m| (target.clone(), m.clone())));
    }
    entries.retain(|path, meta| stays(path, meta.kind, trim));
    for (target, mut names) in groups {
        names.push(target.clone());
        names.retain(|n| entries.contains_key(n));
        names.sort();
        let (Some(first), Some(original)) = (names.first().cloned(), data.get(&target)) else {
            continue;
        };
        for name in names {
            let mut meta = Meta {
                path: name.clone(),
                ..original.clone()
            };
            if name != first {
                (meta.kind, meta.link, meta.size_bytes) = (EntryType::Link, Some(first.clone()), 0);
                meta.xattrs.clear();
            }
            entries.insert(name, meta);
        }
    }
    for path in BLANKED {
        if let Some(meta) = entries.get_mut(path.as_bytes()) {
            (meta.kind, meta.link, meta.size_bytes, meta.mode) = (EntryType::Regular, None, 0, 0o644);
        }
    }
    entries
}

fn stays(path: &[u8], kind: EntryType, trim: &[&str]) -> bool {
    let below = |dir: &str| {
        path.strip_prefix(dir.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"/"))
    };
    let is = |p: &str| path == p.as_bytes();
    let gone = trim.iter().chain(&DROPPED).any(|p| is(p) || below(p))
        || EMPTIED.iter().any(|d| below(d))
        || (HOLLOWED.iter().any(|d| below(d)) && kind != EntryType::Directory)
        // Byte code carries times, and Python makes it anew.
        || path.split(|b| *b == b'/').any(|p| p == b"__pycache__");
    !gone && !matches!(kind, EntryType::Char | EntryType::Block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryType, link: Option<&str>) -> (Vec<u8>, Meta) {
        let path = path.as_bytes().to_vec();
        let meta = Meta {
            path: path.clone(),
            link: link.map(|l| l.as_bytes().to_vec()),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_s: 1,
            size_bytes: 9,
            xattrs: Vec::new(),
            data_offset: 512,
        };
        (path, meta)
    }

    #[test]
    fn volatile_things_go() {
        let dir = EntryType::Directory;
        let file = EntryType::Regular;
        for (path, kind, expected) in [
            ("dev", dir, true),
            ("dev/null", EntryType::Char, false),
            ("var/log/apt", dir, true),
            ("var/log/apt/term.log", file, false),
            ("var/cache/ldconfig/aux-cache", file, false),
            ("etc/machine-id", file, false),
            ("etc/shadow", file, true),
            ("usr/share/doc", dir, false),
            ("usr/share/doc/x/copyright", file, false),
            ("usr/share/docs", dir, true),
            ("usr/lib/python3/__pycache__/x.pyc", file, false),
        ] {
            assert_eq!(
                stays(path.as_bytes(), kind, &["usr/share/doc"]),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn a_hard_link_survives_the_removal_of_its_first_name() {
        let entries = BTreeMap::from([
            entry("doc/a", EntryType::Regular, None),
            entry("usr/c", EntryType::Link, Some("doc/a")),
            entry("usr/b", EntryType::Link, Some("doc/a")),
        ]);
        let kept = keep(entries, &["doc"]);
        let kinds: Vec<_> = kept
            .values()
            .map(|m| (m.kind, m.link.clone(), m.size_bytes))
            .collect();
        let b = b"usr/b".to_vec();
        assert_eq!(
            kinds,
            [(EntryType::Regular, None, 9), (EntryType::Link, Some(b), 0)]
        );
    }
}
