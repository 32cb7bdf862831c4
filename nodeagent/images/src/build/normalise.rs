//! Makes of a tree what an image has of it: without what differs between two runs or what no container needs.

use std::collections::BTreeMap;

use tar::EntryType;

use super::tree::Entries;
use super::trim::Trim;
use crate::archive::Meta;

/// The build host's; the runtime puts its own on top of the empty files.
const BLANKED: [&str; 2] = ["etc/hostname", "etc/resolv.conf"];

/// Drops what must not stay, then gives each hard-linked file's data to the first of its names.
pub(super) fn normalise(mut entries: Entries, trim: &Trim<'_>) -> Entries {
    let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for meta in entries.values().filter(|m| m.kind == EntryType::Link) {
        groups
            .entry(meta.link.clone().unwrap_or_default())
            .or_default()
            .push(meta.path.clone());
    }
    let mut data: Entries = BTreeMap::new();
    for target in groups.keys() {
        data.extend(entries.get(target).map(|m| (target.clone(), m.clone())));
    }
    entries.retain(|path, meta| trim.stays(path, meta.kind));
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

#[cfg(test)]
mod tests {
    use super::super::layer::entry;
    use super::*;

    #[test]
    fn a_hard_link_survives_the_removal_of_its_first_name() {
        let file = |path: &str| entry(path.as_bytes(), EntryType::Regular, 0o644, 9);
        let link = |path: &str| Meta {
            link: Some(b"usr/share/doc/a".to_vec()),
            ..entry(path.as_bytes(), EntryType::Link, 0o644, 0)
        };
        let entries = [file("usr/share/doc/a"), link("usr/c"), link("usr/b")];
        let entries = entries.into_iter().map(|m| (m.path.clone(), m)).collect();
        let kept = normalise(entries, &Trim::default());
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
