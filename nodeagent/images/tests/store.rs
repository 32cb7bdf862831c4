//! The store: import, names, removal, leftovers of crashes.

mod common;

use common::{Tar, layout, layout_raw};
use gantry_images::{ImageStore, Limits};

fn one_layer(content: &str) -> Vec<Vec<u8>> {
    vec![Tar::new().file("f", content).done()]
}

#[test]
fn import_resolve_retag_remove() {
    let tmp = tempfile::tempdir().unwrap();
    let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
    for dir in [&a, &b] {
        std::fs::create_dir(dir).unwrap();
    }
    let first = layout(&a, Some("sip/kamailio:5.6"), &one_layer("one"));
    let second = layout(&b, None, &one_layer("two"));
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    assert_eq!(store.list().unwrap(), []);

    let rows = store.import_layout(&a, None).unwrap();
    assert_eq!(rows[0].digest, first);
    let image = store.resolve("sip/kamailio:5.6").unwrap();
    assert_eq!(
        (image.config.user.as_str(), image.config.entrypoint.len()),
        ("12:34", 1)
    );
    assert_eq!(store.resolve(&image.pinned()).unwrap().digest, first);
    assert_eq!(
        store.resolve(&first.to_string()).unwrap().name.as_deref(),
        Some("sip/kamailio:5.6")
    );

    let unnamed = store.import_layout(&b, None).unwrap_err().to_string();
    assert!(unnamed.contains("--name"), "{unnamed}");
    store.import_layout(&b, Some("sip/kamailio:5.6")).unwrap();
    assert_eq!(store.resolve("sip/kamailio:5.6").unwrap().digest, second);
    // The old one stays reachable by digest for a rollback, until pruned.
    assert_eq!(store.resolve(&image.pinned()).unwrap().digest, first);
    assert_eq!(store.gc().unwrap().blobs, 0);
    assert_eq!(store.prune().unwrap().blobs, 3);
    assert!(store.resolve(&first.to_string()).is_err());

    let report = store.remove("sip/kamailio:5.6").unwrap();
    assert_eq!(report.blobs, 3);
    let gone = store.remove("sip/kamailio:5.6").unwrap_err().to_string();
    assert!(
        gone.contains("no image sip/kamailio:5.6") && gone.contains("gantry image ls"),
        "{gone}"
    );
}

#[test]
fn a_lost_or_damaged_index_comes_back() {
    let tmp = tempfile::tempdir().unwrap();
    let from = tmp.path().join("from");
    std::fs::create_dir(&from).unwrap();
    let digest = layout(&from, Some("t:1"), &one_layer("x"));
    let dir = tmp.path().join("store");
    ImageStore::open(&dir)
        .unwrap()
        .import_layout(&from, None)
        .unwrap();
    let (index, copy) = (dir.join("index.json"), dir.join("index.copy.json"));
    let good = std::fs::read(&index).unwrap();
    for damage in [
        Some(&b""[..]),
        Some(&good[..good.len() / 2]),
        Some(b"\xff\xfe"),
        None,
    ] {
        match damage {
            Some(bytes) => std::fs::write(&index, bytes).unwrap(),
            None => std::fs::remove_file(&index).unwrap(),
        }
        assert_eq!(
            ImageStore::open(&dir).unwrap().resolve("t:1").unwrap().digest,
            digest
        );
        assert_eq!(std::fs::read(&index).unwrap(), good);
    }
    // With the copy lost too, the blobs tell the images, but not their names.
    std::fs::write(&index, "").unwrap();
    std::fs::remove_file(&copy).unwrap();
    let store = ImageStore::open(&dir).unwrap();
    assert!(store.resolve("t:1").is_err());
    assert_eq!(store.resolve(&digest.to_string()).unwrap().digest, digest);
    assert_eq!(store.gc().unwrap().blobs, 0, "nothing is lost to a collection");
    store.import_layout(&from, None).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn import_of_a_tar_plain_or_compressed() {
    let tmp = tempfile::tempdir().unwrap();
    let from = tmp.path().join("from");
    std::fs::create_dir(&from).unwrap();
    let digest = layout(&from, Some("t:1"), &one_layer("x"));
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", &from).unwrap();
    let bytes = builder.into_inner().unwrap();
    for (n, data) in [bytes.clone(), common::gzip(&bytes)].iter().enumerate() {
        let path = tmp.path().join(format!("layout-{n}.tar"));
        std::fs::write(&path, data).unwrap();
        let store = ImageStore::open(&tmp.path().join(format!("store-{n}"))).unwrap();
        assert_eq!(store.import_layout(&path, None).unwrap()[0].digest, digest);
    }
    std::fs::write(tmp.path().join("junk"), vec![1_u8; 5000]).unwrap();
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    assert!(store.import_layout(&tmp.path().join("junk"), None).is_err());
    assert!(store.import_layout(&tmp.path().join("missing"), None).is_err());
}

#[test]
fn nested_indexes_and_foreign_platforms() {
    let tmp = tempfile::tempdir().unwrap();
    let from = tmp.path().join("from");
    std::fs::create_dir(&from).unwrap();
    let digest = layout(&from, None, &one_layer("x"));
    let mut index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(from.join("index.json")).unwrap()).unwrap();
    let ours = index["manifests"][0].clone();
    let mut foreign = ours.clone();
    foreign["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
    foreign["digest"] = serde_json::json!(format!("sha256:{}", "0".repeat(64)));
    index["manifests"] = serde_json::json!([foreign, ours]);
    let inner = index.to_string();
    let entry = serde_json::json!({"mediaType": "application/vnd.oci.image.index.v1+json", "size": inner.len(),
        "digest": common::blob(&from, inner.as_bytes()).to_string(),
        "annotations": {"org.opencontainers.image.ref.name": "multi:1"}});
    let outer = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(from.join("index.json"), outer.to_string()).unwrap();
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let rows = store.import_layout(&from, None).unwrap();
    assert_eq!(
        (rows.len(), rows[0].name.as_deref(), &rows[0].digest),
        (1, Some("multi:1"), &digest)
    );
}

#[test]
fn damage_and_excess_are_refused_and_leave_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let from = tmp.path().join("from");
    std::fs::create_dir(&from).unwrap();
    let layer = one_layer("content").remove(0);
    let digest = layout(&from, Some("t:1"), std::slice::from_ref(&layer));
    let strict = Limits {
        document_bytes: 2000,
        layers: 2,
        blob_bytes: 4096,
        ..Limits::default()
    };
    let store = ImageStore::open_with(&tmp.path().join("store"), strict).unwrap();
    let refused = |expected: &str| {
        let e = store.import_layout(&from, None).unwrap_err();
        let all = format!("{e}: {:?}", std::error::Error::source(&e));
        assert!(all.contains(expected), "{expected}: {all}");
        assert_eq!(
            std::fs::read_dir(store.dir().join("blobs/sha256"))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    };

    let packed = from
        .join("blobs/sha256")
        .join(gantry_images::Digest::of(&common::gzip(&layer)).hex());
    let mut bytes = std::fs::read(&packed).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&packed, &bytes).unwrap();
    refused("does not have its digest");
    std::fs::remove_file(&packed).unwrap();
    refused("cannot be read");

    let manifest = from.join("blobs/sha256").join(digest.hex());
    std::fs::write(&manifest, vec![b' '; 5000]).unwrap();
    refused("larger than the 2000 bytes");

    layout(&from, Some("t:1"), &[layer.clone(), layer.clone(), layer.clone()]);
    refused("3 layers, 2 are allowed");
    let media = "application/vnd.oci.image.layer.v1.tar";
    layout_raw(
        &from,
        Some("t:1"),
        &[(vec![0; 5000], media)],
        &[gantry_images::Digest::of(b"").to_string()],
    );
    refused("5000 bytes, 4096 are allowed");
    layout_raw(&from, Some("t:1"), &[(layer.clone(), media)], &[]);
    refused("1 layers and 0 diff ids");
    layout_raw(
        &from,
        Some("t:1"),
        &[(layer, media)],
        &["sha256:../../../x".to_owned()],
    );
    refused("not a sha256 digest");
}

#[test]
fn leftovers_of_a_crash_are_harmless_and_removed() {
    let tmp = tempfile::tempdir().unwrap();
    let store = common::store_with(tmp.path(), &one_layer("x"));
    // Died while writing the index, while copying blobs, after moving a blob before the index named it.
    std::fs::write(store.dir().join("index.new"), "{half").unwrap();
    std::fs::create_dir(store.dir().join("tmp/work-dead")).unwrap();
    std::fs::write(store.dir().join("tmp/work-dead/blob"), "half").unwrap();
    std::fs::write(store.dir().join("blobs/sha256").join("0".repeat(64)), "orphan").unwrap();
    std::fs::write(store.dir().join("leases/x.new"), "{half").unwrap();
    // Died while unpacking: the layer's folder has no final name yet.
    std::fs::create_dir_all(store.dir().join("tmp/work-dead2/layer/etc")).unwrap();

    let again = ImageStore::open(store.dir()).unwrap();
    assert_eq!(again.list().unwrap().len(), 1);
    let report = again.gc().unwrap();
    assert_eq!((report.blobs, report.blob_bytes), (1, 6));
    assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    again
        .import_layout(&tmp.path().join("from"), Some("t:2"))
        .unwrap();
    assert_eq!(again.list().unwrap().len(), 2);
}

#[test]
fn a_changed_document_is_noticed() {
    let tmp = tempfile::tempdir().unwrap();
    let store = common::store_with(tmp.path(), &one_layer("x"));
    let digest = store.resolve("t:1").unwrap().digest;
    std::fs::write(store.dir().join("blobs/sha256").join(digest.hex()), "{}").unwrap();
    let e = store.resolve("t:1").unwrap_err().to_string();
    assert!(e.contains("does not have its digest"), "{e}");
    // Another image is none of its business; importing it again repairs it.
    let (from, other) = (tmp.path().join("from"), tmp.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    layout(&other, Some("t:2"), &one_layer("y"));
    assert_eq!(store.import_layout(&other, None).unwrap().len(), 1);
    assert!(store.resolve("t:1").is_err());
    store.import_layout(&from, None).unwrap();
    assert_eq!(store.resolve("t:1").unwrap().digest, digest);
}

/// Unmounts even if the test fails.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_leftover_that_cannot_be_removed_stops_nothing() {
    if !common::root_or_skip("a_leftover_that_cannot_be_removed_stops_nothing") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = common::store_with(tmp.path(), &one_layer("x"));
    store.unpack(&store.resolve("t:1").unwrap()).unwrap();
    let busy = store.dir().join("tmp/work-dead/mnt");
    std::fs::create_dir_all(&busy).unwrap();
    rustix::mount::mount("none", &busy, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let mounted = Mounted(busy);
    store
        .import_layout(&tmp.path().join("from"), Some("t:2"))
        .unwrap();
    store.remove("t:2").unwrap();
    assert_eq!(store.remove("t:1").unwrap().layers, 1);
    drop(mounted);
    store.gc().unwrap();
    assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn many_importers_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let store = common::store_with(tmp.path(), &one_layer("x"));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (store, from) = (store.clone(), tmp.path().join("from"));
            scope.spawn(move || {
                store.import_layout(&from, Some(&format!("t{n}:1"))).unwrap();
                store.gc().unwrap();
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 9);
    assert!((0..8).all(|n| store.resolve(&format!("t{n}:1")).is_ok()));
}
