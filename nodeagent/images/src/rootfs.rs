//! Mounts an unpacked image as a container's root file system.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

use crate::idmap::{MappedLayers, OwnIds, detach};
use crate::remove::remove_tree;
use crate::store::{ImageStore, StoreError};
use crate::unpack::UnpackedImage;

/// A root file system cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file or mount operation failed.
    #[error("cannot {operation} {path} for image {image}; {hint}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The folder.
        path: PathBuf,
        /// The image.
        image: String,
        /// What to do.
        hint: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer went away between unpacking and mounting.
    #[error("layer {path} of image {image} was removed meanwhile; unpack the image again")]
    LayerGone {
        /// The layer.
        path: PathBuf,
        /// The image.
        image: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A mounted root file system: `DIR/merged`, with what the container writes in `DIR/upper`.
#[derive(Clone, Debug)]
pub struct Rootfs {
    merged: PathBuf,
}

impl Rootfs {
    /// Mounts `unpacked` at `dir/merged`, making `upper`, `work` and `merged` under `dir`. What an earlier mount left
    /// in `upper` is kept. Refused if `dir/merged` is mounted already: `open` finds that one. Needs root. With `ids` the image's
    /// files have these, and so has what is written: in `upper` there is nothing of the host's root.
    pub fn mount(unpacked: &UnpackedImage, dir: &Path, ids: Option<OwnIds<'_>>) -> Result<Self, RootfsError> {
        let image = unpacked.image.pinned();
        let fail = |operation, path: &Path, hint| {
            let (path, image) = (path.to_owned(), image.clone());
            move |source| RootfsError::Io {
                operation,
                path,
                image,
                hint,
                source,
            }
        };
        let space = "check permissions and free space";
        fs::create_dir_all(dir).map_err(fail("create", dir, space))?;
        let dir = dir.canonicalize().map_err(fail("open", dir, space))?;
        let [upper, work, merged] = ["upper", "work", "merged"].map(|d| dir.join(d));
        for path in [&upper, &work, &merged] {
            fs::create_dir_all(path).map_err(fail("create", path, space))?;
        }
        if is_mounted(&dir, &merged) {
            let error = io::Error::other("it is mounted already");
            return Err(fail("mount", &merged, "unmount it first, or use it")(error));
        }
        {
            let _lock = unpacked.store.lock()?;
            if let Some(gone) = unpacked.lowerdirs.iter().find(|d| !d.is_dir()) {
                return Err(RootfsError::LayerGone {
                    path: gone.clone(),
                    image: image.clone(),
                });
            }
            unpacked.store.lease(&merged, unpacked.lease_names())?;
        }
        if let Some(top) = unpacked.lowerdirs.first() {
            copy_owner(top, &upper, ids).map_err(fail("prepare", &upper, space))?;
        }
        let hint = match ids {
            None => "overlayfs and root are needed, and no more than the kernel's number of layers",
            Some(_) => {
                "for a pod with ids of its own the image store must be on a file system that can be mapped (ext4, xfs, btrfs)"
            }
        };
        overlay_in(&dir, &unpacked.lowerdirs, ids).map_err(fail("mount", &merged, hint))?;
        Ok(Self { merged })
    }

    /// Mounts `dir/merged` anew, out of the layers that it was mounted of: what was written there is gone. An earlier attempt
    /// may have been cut off anywhere. Nothing may run in it. `ids` are those of the mount.
    pub fn renew(store: &ImageStore, dir: &Path, ids: Option<OwnIds<'_>>) -> Result<Self, RootfsError> {
        let fail = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| RootfsError::Io {
                operation,
                path,
                image: "(any)".to_owned(),
                hint: "check permissions, free space, and that nothing uses it",
                source,
            }
        };
        let dir = dir.canonicalize().map_err(fail("open", dir))?;
        let [upper, work, merged, old] = ["upper", "work", "merged", "old"].map(|d| dir.join(d));
        let lowerdirs = store.leased_to(&merged)?;
        detach(&merged).map_err(fail("unmount", &merged))?;
        // Put aside first: a mount on a folder that is half removed would show the rest.
        remove_all(&old).map_err(fail("remove", &old))?;
        fs::create_dir(&old).map_err(fail("create", &old))?;
        for (path, aside) in [(&upper, "upper"), (&work, "work")] {
            match fs::rename(path, old.join(aside)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail("move", path)(e)),
                _ => fs::create_dir(path).map_err(fail("create", path))?,
            }
        }
        if let Some(top) = lowerdirs.first() {
            copy_owner(top, &upper, ids).map_err(fail("prepare", &upper))?;
        }
        overlay_in(&dir, &lowerdirs, ids).map_err(fail("mount", &merged))?;
        remove_all(&old).map_err(fail("remove", &old))?;
        Ok(Self { merged })
    }

    /// Unmounts what is at `dir/merged` (also after a restart of the caller; also if nothing is mounted) and releases
    /// its layers. `dir` itself, with what the container wrote, stays for the caller to remove.
    pub fn unmount(dir: &Path) -> Result<(), RootfsError> {
        let merged = dir.join("merged");
        let fail = |operation, source: io::Error| RootfsError::Io {
            operation,
            path: merged.clone(),
            image: "(any)".to_owned(),
            hint: "stop the processes that use it",
            source,
        };
        loop {
            match unmount(&merged, UnmountFlags::NOFOLLOW) {
                // Not a mount point (any more), or never made.
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(e) => return Err(fail("unmount", e.into())),
                Ok(()) => {}
            }
        }
        match fs::remove_dir(&merged) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("remove", e)),
            _ => Ok(()),
        }
    }

    /// Finds what an earlier run of the caller mounted under `dir`, if it is still there.
    pub fn open(dir: &Path) -> Option<Self> {
        let dir = dir.canonicalize().ok()?;
        let merged = dir.join("merged");
        is_mounted(&dir, &merged).then_some(Self { merged })
    }

    /// The mounted root.
    pub fn path(&self) -> &Path {
        &self.merged
    }
}

impl UnpackedImage {
    fn lease_names(&self) -> Vec<String> {
        let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
        self.lowerdirs.iter().filter_map(name).collect()
    }
}

fn remove_all(dir: &Path) -> io::Result<()> {
    match remove_tree(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// An overlay mount has a device number of its own.
fn is_mounted(dir: &Path, merged: &Path) -> bool {
    match (fs::metadata(dir), fs::symlink_metadata(merged)) {
        (Ok(outer), Ok(inner)) => outer.dev() != inner.dev(),
        _ => false,
    }
}

/// The merged root shows the upper folder's owner and mode: it takes those of the image's root.
fn copy_owner(from: &Path, to: &Path, ids: Option<OwnIds<'_>>) -> io::Result<()> {
    let meta = fs::metadata(from)?;
    let own = |id: u32| Some(id.saturating_add(ids.map_or(0, |ids| ids.first)));
    std::os::unix::fs::chown(to, own(meta.uid()), own(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

/// The layers, with these ids if any, below `dir/upper`.
fn overlay_in(dir: &Path, lower: &[PathBuf], ids: Option<OwnIds<'_>>) -> io::Result<()> {
    let mapped = ids.map(|ids| MappedLayers::mount(lower, &dir.join("lower"), ids));
    let mapped = mapped.transpose()?;
    let lower = mapped.as_ref().map_or(lower, |layers| &layers.paths);
    overlay(lower, &dir.join("upper"), &dir.join("work"), &dir.join("merged"))
}

/// The mount API takes each lower folder by itself (Linux 6.8, `lowerdir+`), so neither their number nor odd
/// characters matter. Older kernels get one option string of at most a page.
pub(crate) fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    match overlay_by_context(lower, upper, work, target) {
        Err(Errno::INVAL | Errno::NOSYS) => overlay_by_options(lower, upper, work, target),
        other => Ok(other?),
    }
}

fn overlay_by_context(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "gantry")?;
    for dir in lower {
        fsconfig_set_string(&context, "lowerdir+", dir)?;
    }
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_create(&context)?;
    let mount = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    )?;
    move_mount(
        &mount,
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn overlay_by_options(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let lower: Vec<_> = lower.iter().map(|p| escape(p)).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(upper),
        escape(work)
    );
    if options.len() >= 4096 {
        let why = format!(
            "{} layers with long paths do not fit this kernel's one page of options",
            lower.len()
        );
        return Err(io::Error::other(why));
    }
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    Ok(mount(
        "gantry",
        target,
        "overlay",
        MountFlags::NODEV,
        options.as_c_str(),
    )?)
}

/// overlayfs.rst: colons and commas in option strings are escaped by a backslash.
fn escape(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, '\\' | ':' | ',') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_strings_for_older_kernels() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: option_strings_for_older_kernels needs root");
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|r| r == "images"),
                "REQUIRE=images, but not root"
            );
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = tmp.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let lower = [path("a:1,x"), path("b\\2")];
        fs::write(lower[0].join("f"), "top").unwrap();
        fs::write(lower[1].join("f"), "base").unwrap();
        fs::write(lower[1].join("g"), "base").unwrap();
        let (upper, work, merged) = (path("u:"), path("w,"), path("merged"));
        overlay_by_options(&lower, &upper, &work, &merged).unwrap();
        let seen = ["f", "g"].map(|f| fs::read_to_string(merged.join(f)).unwrap_or_default());
        Rootfs::unmount(tmp.path()).unwrap();
        assert_eq!(seen, ["top", "base"]);
        let many: Vec<_> = (0..200)
            .map(|n| PathBuf::from(format!("/{n}/{}", "x".repeat(40))))
            .collect();
        let e = overlay_by_options(&many, &upper, &work, &merged)
            .unwrap_err()
            .to_string();
        assert!(e.contains("200 layers"), "{e}");
    }
}
