//! Unpacking: the overlayfs form, and hostile layers that must not reach outside.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::{Tar, root_or_skip, store_with};
use gantry_images::{ImageStore, Limits, MAX_ID};
use proptest::prelude::*;
use tar::{EntryType, Header};

fn unpack(dir: &Path, layers: &[Vec<u8>]) -> Result<Vec<PathBuf>, String> {
    let store = common::import(dir, layers, Limits::default())?;
    let image = store.resolve("t:1").unwrap();
    Ok(store.unpack(&image).unwrap().lowerdirs)
}

fn opaque(path: &Path) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|n| value[..n] == *b"y")
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

#[test]
fn everything_a_layer_may_have() {
    if !root_or_skip("everything_a_layer_may_have") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let long = format!("deep/{}/{}/f", "d".repeat(120), "e".repeat(120));
    let base = Tar::new()
        .entry(EntryType::Directory, "./", 0o750, "", b"")
        .dir("etc")
        .pax(&[("SCHILY.xattr.user.note", b"hi"), ("mtime", b"77.5")])
        .entry(EntryType::Regular, "./etc/x", 0o4755, "", b"data")
        .hardlink("etc/y", "./etc/x")
        .symlink("link", "/etc")
        .entry(EntryType::Fifo, "fifo", 0o600, "", b"")
        .file("link/through", "1")
        .pax(&[("path", long.as_bytes())])
        .file("short", "2")
        .entry(EntryType::Char, "dev/null", 0o666, "", b"")
        .done();
    let top = Tar::new()
        .file("etc/.wh.x", "")
        .dir("gone")
        .file("gone/.wh..wh..opq", "")
        .file(".wh.dir", "")
        .dir("dir")
        .dir("dir2")
        .file(".wh.dir2", "")
        .file("kept", "3")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk", "")
        .done();
    let dirs = unpack(tmp.path(), &[base, top]).unwrap();
    let (top, base) = (&dirs[0], &dirs[1]);
    let x = std::fs::metadata(base.join("etc/x")).unwrap();
    assert_eq!(
        (x.mode() & 0o7777, x.uid(), x.gid(), x.mtime(), x.nlink()),
        (0o4755, 12, 34, 77, 2)
    );
    assert_eq!(std::fs::metadata(base).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::metadata(base.join("etc")).unwrap().mtime(), 1_000_000);
    assert_eq!(std::fs::read_to_string(base.join("etc/through")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(base.join(&long)).unwrap(), "2");
    assert!(!base.join("dev/null").exists() && base.join("fifo").metadata().unwrap().file_type().is_fifo());
    let mut note = [0_u8; 8];
    assert_eq!(
        rustix::fs::getxattr(base.join("etc/x"), "user.note", &mut note[..]).unwrap(),
        2
    );

    assert!(is_whiteout(&top.join("etc/x")));
    assert!(opaque(&top.join("gone")) && opaque(&top.join("dir")) && opaque(&top.join("dir2")));
    assert!(!opaque(&top.join("etc")));
    assert_eq!(std::fs::read_to_string(top.join("kept")).unwrap(), "3");
}

#[test]
fn a_layer_without_its_last_padding() {
    if !root_or_skip("a_layer_without_its_last_padding") {
        return;
    }
    let whole = Tar::new().dir("etc").file("etc/hi", "hi!").done();
    let tmp = tempfile::tempdir().unwrap();
    let dirs = unpack(tmp.path(), &[whole[..3 * 512 - 509].to_vec()]).unwrap();
    assert_eq!(std::fs::read_to_string(dirs[0].join("etc/hi")).unwrap(), "hi!");
    let tmp = tempfile::tempdir().unwrap();
    let long = Tar::new().file("f", &"x".repeat(5000)).done();
    let e = unpack(tmp.path(), &[long[..2000].to_vec()]).unwrap_err();
    assert!(e.contains("(archive)") || e.contains(": f: "), "{e}");
}

#[test]
fn hostile_entries_are_refused_or_stay_inside() {
    if !root_or_skip("hostile_entries_are_refused_or_stay_inside") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "intact").unwrap();
    let out = outside.path().to_str().unwrap();
    let v = victim.to_str().unwrap();
    let regular = |path: &str| Tar::new().file(path, "evil");
    let refused = [
        regular("../victim"),
        regular("a/../../victim"),
        regular(".."),
        Tar::new().hardlink("h", v),
        Tar::new().symlink("s", v).hardlink("h", &format!("../..{v}")),
        Tar::new().symlink("d", out).hardlink("h", "d/victim"),
        Tar::new().entry(EntryType::Char, "mem", 0o666, "", b""),
        Tar::new().entry(EntryType::Block, "disk", 0o666, "", b""),
        Tar::new()
            .pax(&[("SCHILY.xattr.trusted.overlay.redirect", v.as_bytes())])
            .dir("x"),
        Tar::new()
            .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
            .dir("x"),
        Tar::new()
            .pax(&[("SCHILY.xattr.user.overlay.redirect", b"/")])
            .dir("x"),
        Tar::new().pax(&[("path", b"../victim")]).file("ok", "evil"),
        Tar::new().pax(&[("path", b"a\0b")]).file("ok", "evil"),
        Tar::new().file(".wh...", ""),
        Tar::new().file("x/.wh.", ""),
        Tar::new().file(".wh.a", "").hardlink("h", ".wh.a"),
        Tar::new().dir("d").hardlink("h", "d"),
        Tar::new().file("f", "").file("f/x", ""),
        Tar::new().symlink("loop", "loop").file("loop/x", ""),
    ];
    for (n, tar) in refused.into_iter().enumerate() {
        let tmp = tempfile::tempdir().unwrap();
        let e = unpack(tmp.path(), &[tar.done()]).expect_err(&format!("case {n}"));
        assert!(
            e.contains("layer sha256:") && e.contains("image t:1@sha256:"),
            "case {n}: {e}"
        );
    }
    let contained = [
        regular(v),
        Tar::new()
            .symlink("d", out)
            .dir(&out[1..])
            .file("d/victim", "evil"),
        Tar::new()
            .symlink("up", "../../../../../..")
            .file(&format!("up{v}"), "evil"),
        Tar::new().symlink("victim", v).file("victim", "evil"),
        Tar::new().symlink("s", v).hardlink("h", "s").file("h", "evil"),
        Tar::new().dir("d").symlink("d", out).file(".wh.victim", ""),
        Tar::new()
            .dir("a/b")
            .file("a/b/f", "")
            .symlink("a", "/")
            .file("a/b/g", "x"),
    ];
    for (n, tar) in contained.into_iter().enumerate() {
        let tmp = tempfile::tempdir().unwrap();
        unpack(tmp.path(), &[tar.done()]).unwrap_or_else(|e| panic!("case {n}: {e}"));
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "intact");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn an_owner_that_the_kernel_takes_for_none_is_refused() {
    if !root_or_skip("an_owner_that_the_kernel_takes_for_none_is_refused") {
        return;
    }
    for id in [u64::from(MAX_ID) + 1, u64::from(u32::MAX), 1 << 32] {
        let pax = id.to_string();
        for entry in [
            Tar::new().file("f", "").of(id, 0),
            Tar::new().file("f", "").of(0, id),
            Tar::new().symlink("f", "x").of(0, id),
            Tar::new().entry(EntryType::Fifo, "f", 0o600, "", b"").of(id, 0),
            Tar::new().dir("f").of(id, id),
            Tar::new().dir("./").of(id, 0),
            Tar::new().pax(&[("uid", pax.as_bytes())]).dir("f"),
            Tar::new().pax(&[("gid", pax.as_bytes())]).dir("f"),
        ] {
            let tmp = tempfile::tempdir().unwrap();
            let e = unpack(tmp.path(), &[entry.done()]).unwrap_err();
            assert!(e.contains("cannot unpack layer"), "{id}: {e}");
        }
    }
    let tmp = tempfile::tempdir().unwrap();
    let most = Tar::new().file("f", "").of(MAX_ID.into(), MAX_ID.into()).done();
    let dirs = unpack(tmp.path(), &[most]).unwrap();
    let found = std::fs::metadata(dirs[0].join("f")).unwrap();
    assert_eq!((found.uid(), found.gid()), (MAX_ID, MAX_ID));
}

#[test]
fn what_a_terminal_would_act_on_is_escaped_in_a_refusal() {
    if !root_or_skip("what_a_terminal_would_act_on_is_escaped_in_a_refusal") {
        return;
    }
    let name = "a\u{1b}]0;x\u{7}b";
    let mut nonsense = Tar::new().file(name, "").done();
    let mut header = Header::from_byte_slice(&nonsense[..512]).clone();
    header.as_old_mut().uid = *b"nonsense";
    header.set_cksum();
    nonsense[..512].copy_from_slice(header.as_bytes());
    let device = Tar::new().entry(EntryType::Char, name, 0o666, "", b"").done();
    for layer in [device, nonsense] {
        let tmp = tempfile::tempdir().unwrap();
        let e = unpack(tmp.path(), &[layer]).unwrap_err();
        assert!(e.contains("]0;x") && !e.contains(char::is_control), "{e:?}");
    }
}

#[test]
fn bombs_and_lies_are_refused() {
    if !root_or_skip("bombs_and_lies_are_refused") {
        return;
    }
    let strict = Limits {
        layer_bytes: 1 << 20,
        layer_entries: 50,
        extension_bytes: 4096,
        folder_path_bytes: 1000,
        image_bytes: 512 << 10,
        image_entries: 60,
        ..Limits::default()
    };
    let zeros = "0".repeat(2 << 20);
    let many = (0..60).fold(Tar::new(), |t, n| t.dir(&format!("d{n}")));
    let cases = [
        (Tar::new().file("zeros", &zeros), "more than the 524288 bytes"),
        (
            Tar::new().pax(&[("comment", b"x")]).file("f", &zeros),
            "unpacks to more than the 524288 bytes",
        ),
        (many, "more than 50 entries"),
        (
            Tar::new().pax(&[("comment", &[b'x'; 5000])]).file("f", ""),
            "extended header of 50",
        ),
        (
            Tar::new()
                .pax(&[("comment", b"x")])
                .pax(&[("comment", b"y")])
                .file("f", ""),
            "two extended headers",
        ),
        (
            (0..40).fold(Tar::new(), |t, n| {
                t.dir(&format!("a-longer-name-of-a-folder-{n}"))
            }),
            "too many folders",
        ),
        (Tar::new().pax(&[("size", b"5")]).file("f", "xx"), "contradicts"),
        (
            Tar::new().pax(&[("GNU.sparse.major", b"1")]).file("f", "xx"),
            "sparse",
        ),
    ];
    for (tar, expected) in cases {
        let tmp = tempfile::tempdir().unwrap();
        let all = common::import(tmp.path(), &[tar.done()], strict).unwrap_err();
        assert!(all.contains(expected), "{expected}: {all}");
        let layers = tmp.path().join("store/layers");
        assert_eq!(std::fs::read_dir(layers).unwrap().count(), 0);
    }
    // Each layer within its bounds, all together not.
    let forty = |name: &str| {
        (0..40)
            .fold(Tar::new(), |t, n| t.file(&format!("{name}{n}"), ""))
            .done()
    };
    let tmp = tempfile::tempdir().unwrap();
    let all = common::import(tmp.path(), &[forty("a"), forty("b")], strict).unwrap_err();
    assert!(all.contains("more than 60 files"), "{all}");
    let tmp = tempfile::tempdir().unwrap();
    let wrong = gantry_images::Digest::of(b"something else").to_string();
    let media = "application/vnd.oci.image.layer.v1.tar";
    std::fs::create_dir(tmp.path().join("from")).unwrap();
    common::layout_raw(
        &tmp.path().join("from"),
        Some("t:1"),
        &[(Tar::new().done(), media)],
        &[wrong],
    );
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let e = store.import_layout(&tmp.path().join("from"), None).unwrap_err();
    let e = common::chain(&e);
    assert!(e.contains("the content has digest"), "{e}");
}

#[test]
fn many_unpackers_at_once() {
    if !root_or_skip("many_unpackers_at_once") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = store_with(tmp.path(), &[Tar::new().dir("etc").file("etc/hi", "hi").done()]);
    let image = store.resolve("t:1").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| store.unpack(&image).unwrap());
        }
    });
    assert_eq!(std::fs::read_dir(store.dir().join("layers")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

/// Few names, so that entries collide and links point at each other.
fn any_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "a", "b", "c", "..", ".", ".wh.a", ".wh..wh..opq"]);
    prop::collection::vec(part, 1..4).prop_map(|p| p.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the entries say, nothing next to the store or above the layer changes.
    #[test]
    fn nothing_escapes(entries in prop::collection::vec((0_u8..7, any_path(), any_path()), 1..40)) {
        if !root_or_skip("nothing_escapes") {
            return Ok(());
        }
        let tmp = tempfile::tempdir().unwrap();
        let canary = tmp.path().join("a");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("b"), "intact").unwrap();
        let tar = entries.iter().fold(Tar::new(), |t, (kind, path, to)| match kind {
            0 => t.dir(path),
            1 => t.file(path, "evil"),
            2 => t.symlink(path, to),
            3 => t.symlink(path, canary.to_str().unwrap()),
            4 => t.hardlink(path, to),
            5 => t.symlink("c", canary.to_str().unwrap()).file(&format!("c/{path}"), "evil"),
            _ => t.entry(EntryType::Fifo, path, 0o600, "", b""),
        });
        let _ = unpack(tmp.path(), &[tar.done()]);
        prop_assert_eq!(std::fs::read_to_string(canary.join("b")).unwrap(), "intact");
        let mut names: Vec<_> =
            std::fs::read_dir(tmp.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        prop_assert_eq!(names, ["a", "from", "store"]);
        let mut names: Vec<_> = std::fs::read_dir(tmp.path().join("store")).unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        prop_assert_eq!(names, ["blobs", "index.copy.json", "index.json", "layers", "leases", "lock", "oci-layout", "tmp"]);
    }
}
