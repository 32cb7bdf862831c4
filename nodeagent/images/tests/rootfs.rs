//! Real overlay mounts.

mod common;

use std::path::{Path, PathBuf};

use common::{Tar, root_or_skip, store_with};
use gantry_images::Rootfs;

/// Unmounts even if the test fails.
struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = Rootfs::unmount(&self.0);
    }
}

fn mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.contains(&format!(" {} ", path.display()))
}

fn layers() -> Vec<Vec<u8>> {
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:100:101::/srv:/bin/false\n";
    vec![
        Tar::new()
            .file("etc/passwd", passwd)
            .file("etc/old", "1")
            .file("opt/hidden", "1")
            .file("keep", "base")
            .done(),
        Tar::new()
            .file("etc/.wh.old", "")
            .file("opt/.wh..wh..opq", "")
            .file("opt/new", "2")
            .done(),
        Tar::new()
            .entry(tar::EntryType::Directory, "./", 0o711, "", b"")
            .file("keep", "top")
            .done(),
    ]
}

#[test]
fn layers_whiteouts_writes_and_leases() {
    if !root_or_skip("layers_whiteouts_writes_and_leases") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = store_with(tmp.path(), &layers());
    let image = store.resolve("t:1").unwrap();
    let unpacked = store.unpack(&image).unwrap();
    let pod = tmp.path().join("pod:a,b"); // characters that option strings would have to escape
    let _guard = Guard(pod.clone());
    let rootfs = Rootfs::mount(&unpacked, &pod, None).unwrap();
    let root = rootfs.path();
    assert!(mounted(root));
    assert_eq!(Rootfs::open(&pod).unwrap().path(), root);
    assert!(
        Rootfs::mount(&unpacked, &pod, None)
            .unwrap_err()
            .to_string()
            .contains("unmount it first")
    );
    let read = |p: &str| std::fs::read_to_string(root.join(p)).ok();
    assert_eq!(read("keep").as_deref(), Some("top"));
    assert_eq!(
        (read("etc/old"), read("opt/hidden"), read("opt/new").as_deref()),
        (None, None, Some("2"))
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(root).unwrap());
    assert_eq!(mode & 0o7777, 0o711);
    let user = gantry_images::resolve_user(root, "app", gantry_images::Asked::default()).unwrap();
    assert_eq!((user.uid, user.gid, user.home.as_str()), (100, 101, "/srv"));

    std::fs::write(root.join("keep"), "changed").unwrap();
    let fresh = store.unpack(&image).unwrap();
    assert_eq!(
        std::fs::read_to_string(fresh.lowerdirs[0].join("keep")).unwrap(),
        "top"
    );

    // Removed while mounted: the blobs go, the layers stay until the mount is gone.
    assert_eq!(store.remove("t:1").unwrap().layers, 0);
    assert_eq!(read("etc/passwd").map(|p| p.lines().count()), Some(2));

    // Begun anew, as often as one likes, without what was written, and after an attempt that was cut off.
    for cut_off in [false, true] {
        std::fs::write(root.join("keep"), "changed").unwrap();
        std::fs::write(root.join("pid"), "1").unwrap();
        if cut_off {
            Rootfs::unmount(&pod).unwrap();
            std::fs::create_dir(root).unwrap();
            std::fs::create_dir(pod.join("old")).unwrap();
            std::fs::rename(pod.join("work"), pod.join("old/work")).unwrap();
        }
        let renewed = Rootfs::renew(&store, &pod, None).unwrap();
        assert_eq!((renewed.path(), mounted(root)), (root, true));
        assert_eq!((read("keep").as_deref(), read("pid")), (Some("top"), None));
        assert!(!pod.join("old").exists());
    }
    Rootfs::unmount(&pod).unwrap();
    assert!(!mounted(root) && Rootfs::open(&pod).is_none());
    Rootfs::unmount(&pod).unwrap();
    let leases = || std::fs::read_dir(store.dir().join("leases")).unwrap().count();
    assert_eq!(leases(), 1);
    store.release(&pod).unwrap();
    store.release(&pod).unwrap();
    assert_eq!(leases(), 0);
    assert_eq!(store.gc().unwrap().layers, 3);
    let gone = Rootfs::mount(&unpacked, &pod, None).unwrap_err().to_string();
    assert!(gone.contains("unpack the image again"), "{gone}");
}

/// What can be made again goes where space is short; what is mounted or wanted now stays.
#[test]
fn layers_that_nobody_uses_are_shed() {
    if !root_or_skip("layers_that_nobody_uses_are_shed") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = store_with(tmp.path(), &layers());
    let pod = tmp.path().join("pod");
    let _guard = Guard(pod.clone());
    let mounted = store.resolve("t:1").unwrap();
    Rootfs::mount(&store.unpack(&mounted).unwrap(), &pod, None).unwrap();
    for (name, content) in [("idle:1", "idle"), ("wanted:1", "wanted")] {
        let from = tmp.path().join(content);
        std::fs::create_dir(&from).unwrap();
        common::layout(&from, Some(name), &[Tar::new().file("f", content).done()]);
        store.import_layout(&from, None).unwrap();
    }
    let wanted = store.resolve("wanted:1").unwrap();
    assert_eq!(store.shed(Some(&wanted)).unwrap().layers, 1);
    assert_eq!(std::fs::read_dir(store.dir().join("layers")).unwrap().count(), 4);
    assert_eq!(store.list().unwrap().len(), 3);
    // Made again when it is wanted.
    let idle = store.unpack(&store.resolve("idle:1").unwrap()).unwrap();
    assert_eq!(
        std::fs::read_to_string(idle.lowerdirs[0].join("f")).unwrap(),
        "idle"
    );
}

#[test]
fn many_layers() {
    if !root_or_skip("many_layers") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..100)
        .map(|n| Tar::new().file(&format!("f{n}"), "x").done())
        .collect();
    let store = store_with(tmp.path(), &layers);
    let unpacked = store.unpack(&store.resolve("t:1").unwrap()).unwrap();
    let pod = tmp.path().join("pod");
    let _guard = Guard(pod.clone());
    let rootfs = Rootfs::mount(&unpacked, &pod, None).unwrap();
    assert_eq!(std::fs::read_dir(rootfs.path()).unwrap().count(), 100);
}

#[test]
fn unpacking_twice_at_once() {
    if !root_or_skip("unpacking_twice_at_once") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = store_with(tmp.path(), &layers());
    let image = store.resolve("t:1").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| store.unpack(&image).unwrap());
        }
    });
    assert_eq!(std::fs::read_dir(store.dir().join("layers")).unwrap().count(), 3);
}
