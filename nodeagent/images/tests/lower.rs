//! Layers that lean on those below them, as archives of image builders do that leave folders out.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Tar, root_or_skip};
use gantry_images::{ImageStore, Limits, Rootfs};
use tar::EntryType;

/// An image, mounted; unmounted even if the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Rootfs::unmount(&self.0);
    }
}

fn mounted(dir: &Path, layers: &[Vec<u8>]) -> Mounted {
    mount_in(&common::store_with(dir, layers), &dir.join("pod"))
}

fn mount_in(store: &ImageStore, pod: &Path) -> Mounted {
    let unpacked = store.unpack(&store.resolve("t:1").unwrap()).unwrap();
    Rootfs::mount(&unpacked, pod, None).unwrap();
    Mounted(pod.to_owned())
}

fn base() -> Vec<u8> {
    Tar::new()
        .entry(EntryType::Directory, "tmp", 0o1777, "", b"")
        .pax(&[("SCHILY.xattr.user.note", b"kept")])
        .entry(EntryType::Directory, "usr", 0o750, "", b"")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("up", "../../../lib")
        .pax(&[("SCHILY.xattr.user.note", b"hi")])
        .entry(EntryType::Regular, "usr/lib/one", 0o4755, "", b"one")
        .symlink("usr/lib/link", "one")
        .file("gone/x", "x")
        .file("file", "file")
        .done()
}

#[test]
fn what_an_archive_leaves_out_is_as_it_was_below() {
    if !root_or_skip("what_an_archive_leaves_out_is_as_it_was_below") {
        return;
    }
    let top = Tar::new()
        .file("tmp/new", "")
        .file("lib/two", "two")
        .file("up/three", "three")
        .file("usr/share/doc", "")
        .file(".wh.gone", "")
        .file("gone/y", "y")
        .done();
    let tmp = tempfile::tempdir().unwrap();
    let pod = mounted(tmp.path(), &[base(), top]);
    let root = pod.0.join("merged");
    let meta = |p: &str| fs::symlink_metadata(root.join(p)).unwrap();
    assert_eq!((meta("tmp").mode() & 0o7777, meta("tmp").uid()), (0o1777, 12));
    assert_eq!(
        (meta("usr").mode() & 0o7777, meta("usr").mtime()),
        (0o750, 1_000_000)
    );
    let mut note = [0_u8; 8];
    assert_eq!(
        rustix::fs::getxattr(root.join("usr"), "user.note", &mut note[..]),
        Ok(4)
    );
    assert_eq!(
        (meta("usr/share").mode() & 0o7777, meta("usr/share").uid()),
        (0o755, 0)
    );
    assert!(meta("lib").is_symlink(), "a file below a link hides no link");
    assert_eq!(fs::read_to_string(root.join("usr/lib/two")).unwrap(), "two");
    assert_eq!(fs::read_to_string(root.join("usr/lib/three")).unwrap(), "three");
    let gone: Vec<_> = fs::read_dir(root.join("gone"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(gone, ["y"]);
}

#[test]
fn a_file_below_gets_one_more_name() {
    if !root_or_skip("a_file_below_gets_one_more_name") {
        return;
    }
    let top = Tar::new()
        .hardlink("usr/lib/again", "usr/lib/one")
        .hardlink("by-link", "lib/one")
        .done();
    let middle = Tar::new().file("other", "").done();
    let last = Tar::new()
        .hardlink("third", "by-link")
        .hardlink("l", "usr/lib/link")
        .done();
    let tmp = tempfile::tempdir().unwrap();
    let pod = mounted(tmp.path(), &[base(), middle, top, last]);
    let root = pod.0.join("merged");
    for name in ["usr/lib/one", "usr/lib/again", "by-link", "third"] {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "one", "{name}");
        let meta = fs::metadata(root.join(name)).unwrap();
        assert_eq!(
            (meta.mode() & 0o7777, meta.uid(), meta.mtime()),
            (0o4755, 12, 1_000_000),
            "{name}"
        );
    }
    let mut note = [0_u8; 8];
    assert_eq!(
        rustix::fs::getxattr(root.join("by-link"), "user.note", &mut note[..]),
        Ok(2)
    );
    let inode = |p: &str| fs::metadata(root.join(p)).unwrap().ino();
    assert_eq!(inode("usr/lib/one"), inode("usr/lib/again"));
    assert_eq!(fs::read_link(root.join("l")).unwrap(), Path::new("one"));
}

#[test]
fn links_to_nothing_below_are_refused() {
    if !root_or_skip("links_to_nothing_below_are_refused") {
        return;
    }
    for top in [
        Tar::new().hardlink("h", "absent"),
        Tar::new().hardlink("h", "usr"),
        Tar::new().file(".wh.file", "").hardlink("h", "file"),
        Tar::new().hardlink("h", "file/x"),
        Tar::new().file("file/x", ""),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let result = common::import(tmp.path(), &[base(), top.done()], Limits::default());
        assert!(result.is_err_and(|e| e.contains("layer sha256:")));
    }
}

/// The same layer over two bases is not the same folder; both stay while their images do.
#[test]
fn a_layer_that_leans_is_kept_by_what_it_leans_on() {
    if !root_or_skip("a_layer_that_leans_is_kept_by_what_it_leans_on") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let leaning = Tar::new().hardlink("copy", "file").done();
    let bases = ["one", "two"].map(|text| Tar::new().file("file", text).done());
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    for (n, base) in bases.iter().enumerate() {
        let from = tmp.path().join(format!("from-{n}"));
        fs::create_dir(&from).unwrap();
        common::layout(&from, Some(&format!("t{n}:1")), &[base.clone(), leaning.clone()]);
        store.import_layout(&from, None).unwrap();
    }
    assert_eq!(store.gc().unwrap().layers, 0);
    assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 4);
    for (n, text) in ["one", "two"].into_iter().enumerate() {
        let unpacked = store.unpack(&store.resolve(&format!("t{n}:1")).unwrap()).unwrap();
        assert_eq!(
            fs::read_to_string(unpacked.lowerdirs[0].join("copy")).unwrap(),
            text
        );
    }
    assert_eq!(store.remove("t0:1").unwrap().layers, 2);
}

#[test]
fn an_image_leaves_room_for_others() {
    if !root_or_skip("an_image_leaves_room_for_others") {
        return;
    }
    let greedy = Limits {
        kept_free_percent: 101,
        kept_free_bytes: u64::MAX,
        ..Limits::default()
    };
    let tmp = tempfile::tempdir().unwrap();
    let refused = common::import(tmp.path(), &[base()], greedy).unwrap_err();
    assert!(refused.contains("kept for everything else"), "{refused}");
}
