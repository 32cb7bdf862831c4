//! Applies a layer's tar stream to an empty folder (OCI image spec, layer.md), whiteouts in overlayfs form.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::tree::{Found, Place, Tree};
use super::{Fault, layer_reader};
use crate::archive::{self, Meta, shown};
use crate::digest::Digest;
use crate::limits::Limits;
use crate::space::Budget;
use crate::user::MAX_ID;

/// Layer spec: prefix of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// Layer spec: the folder's lower content is hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Longest path, in components: removing a tree holds a file descriptor for each level.
const DEPTH: usize = 200;

/// Unpacks the layer in `file` (compressed or not) into `root`, over the layers at `lower`, top first. Returns its diff id,
/// and whether what it unpacked to depends on those.
pub(super) fn apply_stream(
    file: File,
    root: &Path,
    lower: &[PathBuf],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<(Digest, bool), Fault> {
    let mut reader = layer_reader(file, limits.layer_bytes)?;
    let mut tree = Tree::open(root, lower, limits, budget)?;
    // Some builders (umoci insert) leave out the last block's padding and the end marker. The digest covers what
    // really came.
    let padded = (&mut reader).chain(io::repeat(0).take(511 + 512));
    archive::for_each::<_, Fault>(padded, limits, |meta, data| apply_entry(&mut tree, &meta, data))?;
    // What follows the end marker belongs to the digest.
    io::copy(&mut reader, &mut io::sink())?;
    tree.finish()?;
    Ok((reader.finish().0, tree.depends))
}

fn apply_entry(tree: &mut Tree<'_>, meta: &Meta, data: &mut dyn Read) -> Result<(), Fault> {
    let shown = shown(&meta.path);
    let bad = |why: &str| Fault::Content(shown.clone(), why.to_owned());
    if let Some(id) = [meta.uid, meta.gid].into_iter().find(|id| *id > MAX_ID) {
        return Err(bad(&format!("its owner or group is {id}: ids are 0 to {MAX_ID}")));
    }
    let parts = components(&meta.path).map_err(&bad)?;
    let Some((name, parents)) = parts.split_last() else {
        return match meta.kind {
            EntryType::Directory => Ok(tree.set_root(meta)?),
            _ => Err(bad("only a folder can be the root")),
        };
    };
    let in_dev = parts[0] == b"dev";
    if matches!(meta.kind, EntryType::Char | EntryType::Block) {
        // The runtime mounts its own /dev; a device node elsewhere would only be a way to the host's devices.
        return if in_dev {
            Ok(())
        } else {
            Err(bad("device nodes are allowed under /dev only"))
        };
    }
    tree.budget.entry()?;
    let place = tree.place(parents, name).map_err(|e| named(e, &shown))?;
    if name.starts_with(WHITEOUT) {
        return whiteout(tree, &place, name)
            .map_err(|e| named(e, &shown))
            .and_then(|ok| {
                if ok {
                    Ok(())
                } else {
                    Err(bad("this whiteout hides nothing that can have a name"))
                }
            });
    }
    let xattrs = allowed_xattrs(meta).map_err(|why| Fault::Content(shown.clone(), why))?;
    let link = || {
        meta.link
            .clone()
            .filter(|l| !l.is_empty() && !l.contains(&0))
            .ok_or_else(|| bad("a link without a target"))
    };
    match meta.kind {
        EntryType::Directory => tree.make_dir(&place, meta, &xattrs),
        EntryType::Regular | EntryType::Continuous => tree.make_file(&place, meta, &xattrs, data),
        EntryType::Symlink => tree.make_symlink(&place, meta, &link()?),
        EntryType::Fifo => tree.make_fifo(&place, meta),
        EntryType::Link => {
            let target = components(&link()?).map_err(&bad)?;
            let Some((name, parents)) = target.split_last() else {
                return Err(bad("a hard link to the root"));
            };
            if name.starts_with(WHITEOUT) {
                return Err(bad("a hard link to a whiteout"));
            }
            tree.make_hardlink(&place, parents, name)
        }
        other => return Err(bad(&format!("entries of type {other:?} are not supported"))),
    }
    .map_err(|e| named(e, &shown))
}

/// Says which entry failed; errors about space stay errors about space.
fn named(e: io::Error, shown: &str) -> Fault {
    match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        None | Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::IO) => {
            Fault::Io(e)
        }
        Some(_) => Fault::Content(shown.to_owned(), e.to_string()),
    }
}

/// False if the whiteout's name is not one.
fn whiteout(tree: &mut Tree<'_>, place: &Place, name: &[u8]) -> io::Result<bool> {
    if name == OPAQUE {
        tree.make_opaque(&place.parent)?;
        return Ok(true);
    }
    let hidden = &name[WHITEOUT.len()..];
    if hidden.starts_with(WHITEOUT) {
        // .wh..wh.plnk and the like: AUFS' own bookkeeping.
        return Ok(true);
    }
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Ok(false);
    }
    let place = place.sibling(hidden);
    match tree.find(&place)? {
        // A whiteout speaks of lower layers only, wherever it stands in the stream.
        Found::Dir => tree.make_opaque_child(&place)?,
        Found::Nothing => tree.make_whiteout(&place)?,
        Found::Whiteout | Found::Other => {}
    }
    Ok(true)
}

/// The path's components below the root. Leading slashes and `.` are dropped; `..` is refused.
fn components(path: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    if path.len() > 4096 {
        return Err("a path of more than 4096 bytes");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("a path with '..'"),
            _ if part.contains(&0) => return Err("a path with a zero byte"),
            _ if part.len() > 255 => return Err("a name of more than 255 bytes"),
            _ if parts.len() == DEPTH => return Err("a path of more than 200 folders"),
            _ => parts.push(part.to_vec()),
        }
    }
    Ok(parts)
}

/// Attributes that are applied. Labels of the builder's host are dropped; what could talk to overlayfs is refused.
fn allowed_xattrs(meta: &Meta) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut kept = Vec::new();
    for (name, value) in &meta.xattrs {
        let user = name.starts_with("user.") && !name.starts_with("user.overlay.");
        match name.as_str() {
            "security.capability" | "system.posix_acl_access" | "system.posix_acl_default" => {}
            "security.selinux" | "security.ima" | "security.evm" => continue,
            _ if user && !name.contains('\0') => {}
            _ => {
                return Err(format!(
                    "the extended attribute {name:?} is not allowed in an image"
                ));
            }
        }
        kept.push((name.clone(), value.clone()));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let c = |p: &str| components(p.as_bytes()).map(|v| v.len());
        assert_eq!(c("./usr//bin/./x/"), Ok(3));
        assert_eq!(c("/"), Ok(0));
        assert_eq!(c("/etc/passwd"), Ok(2));
        assert!(c("../x").is_err() && c("a/../../x").is_err() && c("a/..").is_err() && c("a\0b").is_err());
        assert!(c(&"x".repeat(256)).is_err() && c(&"x/".repeat(3000)).is_err());
        assert!(c(&"x/".repeat(DEPTH)).is_ok() && c(&"x/".repeat(DEPTH + 1)).is_err());
    }
}
