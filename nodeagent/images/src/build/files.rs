//! The layer of the recipe's own files.

use std::collections::BTreeMap;

use tar::EntryType;

use super::layer::{Layer, LayerWriter, entry};
use super::tree::Entries;
use super::{BuildError, Job};
use crate::archive::Meta;

/// Links followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

impl Job<'_> {
    /// Parent folders are written too, as the layers below have them: an upper layer's folder overrides the lower one's
    /// owner and mode.
    pub(super) fn files_layer(&self, below: &Entries) -> Result<Layer, BuildError> {
        let mut entries: BTreeMap<Vec<u8>, (Meta, &[u8])> = BTreeMap::new();
        for file in &self.recipe.files {
            let fail = |why| BuildError::File {
                image: self.recipe.name.to_string(),
                path: file.path.clone(),
                why,
            };
            let path = resolve(below, &file.path).map_err(fail)?;
            for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
                let parent = path[..at].to_vec();
                let meta = below
                    .get(&parent)
                    .cloned()
                    .unwrap_or_else(|| entry(&parent, EntryType::Directory, 0o755, 0));
                if entries
                    .get(&parent)
                    .is_some_and(|(m, _)| m.kind != EntryType::Directory)
                {
                    return Err(fail("another file of the recipe is where its folder would be"));
                }
                entries.insert(parent, (meta, &[]));
            }
            let meta = entry(&path, EntryType::Regular, file.mode, file.content.len() as u64);
            if entries.insert(path, (meta, &file.content)).is_some() {
                return Err(fail("something else of the recipe has the same path"));
            }
        }
        let root = below.get(&Vec::new()).cloned();
        let root = root.unwrap_or_else(|| entry(b"", EntryType::Directory, 0o755, 0));
        let write = || {
            let mut writer = LayerWriter::create(self.scratch.path())?;
            writer.append(&root, std::io::empty())?;
            for (meta, content) in entries.values() {
                writer.append(meta, *content)?;
            }
            writer.finish(format!("{} files", self.recipe.files.len()))
        };
        write().map_err(self.io("write the layer of files"))
    }
}

/// Where `/bin/x` really goes if there is `/bin -> usr/bin` below. A link as the last component is replaced.
fn resolve(below: &Entries, path: &str) -> Result<Vec<u8>, &'static str> {
    let split = |p: &[u8]| {
        p.split(|b| *b == b'/')
            .map(<[u8]>::to_vec)
            .rev()
            .collect::<Vec<_>>()
    };
    let mut todo = split(path.trim_start_matches('/').as_bytes());
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => done.push(part),
        }
        let Some(meta) = below.get(&done.join(&b'/')) else {
            continue;
        };
        match (meta.kind, todo.is_empty()) {
            (EntryType::Directory, true) => return Err("the image has a folder there"),
            (EntryType::Directory, false) | (_, true) => {}
            (EntryType::Symlink, false) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err("its folder is a loop of symbolic links");
                }
                let target = meta.link.clone().unwrap_or_default();
                if target.starts_with(b"/") {
                    done.clear();
                } else {
                    done.pop();
                }
                todo.extend(split(&target));
            }
            (_, false) => return Err("the image has a file where its folder would be"),
        }
    }
    Ok(done.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_through_the_links_below() {
        let link = |path: &str, to: &str| {
            let mut meta = entry(path.as_bytes(), EntryType::Symlink, 0o777, 0);
            meta.link = Some(to.as_bytes().to_vec());
            (meta.path.clone(), meta)
        };
        let dir = (b"etc".to_vec(), entry(b"etc", EntryType::Directory, 0o755, 0));
        let below = Entries::from([
            dir,
            link("bin", "usr/bin"),
            link("var/run", "/run"),
            link("a", "a"),
            link("up", "../../etc"),
        ]);
        let r = |p: &str| resolve(&below, p).map(|b| String::from_utf8(b).unwrap());
        assert_eq!(r("/bin/x").as_deref(), Ok("usr/bin/x"));
        assert_eq!(r("/var/run/x/y").as_deref(), Ok("run/x/y"));
        assert_eq!(r("/up/x").as_deref(), Ok("etc/x"));
        assert_eq!(r("/bin").as_deref(), Ok("bin"));
        assert!(r("/a/x").is_err() && r("/etc").is_err());
    }
}
