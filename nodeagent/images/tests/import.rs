//! What other tools export, and what is refused because no container could be started from it.

mod common;

use std::fs;
use std::path::Path;

use common::{Tar, blob, chain, root_or_skip};
use gantry_images::{Digest, ImageStore};
use serde_json::{Value, json};

const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Writes an image with this configuration; its descriptor.
fn image(dir: &Path, layer: &[u8], config: Value, arch: &str) -> Value {
    let packed = common::gzip(layer);
    let document = json!({"architecture": arch, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer).to_string()]}})
    .to_string();
    let part = |media: &str, data: &[u8]| json!({"mediaType": media, "digest": blob(dir, data).to_string(), "size": data.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": part("application/vnd.docker.container.image.v1+json", document.as_bytes()),
        "layers": [part(GZIP, &packed)]});
    part(
        "application/vnd.docker.distribution.manifest.v2+json",
        manifest.to_string().as_bytes(),
    )
}

fn layout(dir: &Path, manifests: &[Value]) {
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(
        dir.join("index.json"),
        json!({"schemaVersion": 2, "manifests": manifests}).to_string(),
    )
    .unwrap();
}

fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

fn ours() -> String {
    oci_spec::image::Arch::default().to_string()
}

fn layer() -> Vec<u8> {
    Tar::new()
        .file("etc/passwd", "app:x:7:8::/srv:/bin/sh\n")
        .file("etc/group", "app:x:8:\n")
        .done()
}

#[test]
fn a_list_of_docker_s_with_variants_and_attestations() {
    let tmp = tempfile::tempdir().unwrap();
    let platform =
        |arch: &str, variant: &str| json!({"os": "linux", "architecture": arch, "variant": variant});
    let [v3, plain, foreign, attested] = ["v3", "", "f", "a"].map(|content| {
        let layer = Tar::new().file("f", content).done();
        image(tmp.path(), &layer, json!({}), &ours())
    });
    let plain_digest = plain["digest"].as_str().unwrap().to_owned();
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": [
        with(v3, "platform", platform(&ours(), "v3")),
        with(plain, "platform", json!({"os": "linux", "architecture": ours()})),
        with(foreign, "platform", platform("s390x", "")),
        with(attested, "platform", json!({"os": "unknown", "architecture": "unknown"})),
    ]})
    .to_string();
    layout(
        tmp.path(),
        &[
            json!({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "digest": blob(tmp.path(), list.as_bytes()).to_string(), "size": list.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/nf:1.2", "org.opencontainers.image.ref.name": "1.2"}}),
        ],
    );
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let rows = store.import_layout(tmp.path(), None).unwrap();
    assert_eq!((rows.len(), rows[0].digest.to_string()), (1, plain_digest));
    for name in ["nf:1.2", "docker.io/library/nf:1.2"] {
        assert_eq!(store.resolve(name).unwrap().digest, rows[0].digest, "{name}");
    }
    store
        .import_layout(tmp.path(), Some("docker.io/library/nf:1.2"))
        .unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    let foreign_only = tempfile::tempdir().unwrap();
    let only = image(foreign_only.path(), &layer(), json!({}), "s390x");
    layout(
        foreign_only.path(),
        &[with(only, "platform", platform("s390x", ""))],
    );
    let refused = chain(&store.import_layout(foreign_only.path(), Some("x:1")).unwrap_err());
    assert!(
        refused.contains("0 images for this platform (linux/"),
        "{refused}"
    );
    // A name would not help: it says what there is instead.
    for name in [Some("x:1"), None] {
        let refused = chain(&store.import_layout(foreign_only.path(), name).unwrap_err());
        assert!(refused.contains("only for linux/s390x"), "{refused}");
        assert!(!refused.contains("--name"), "{refused}");
    }
}

#[test]
fn zstd_in_several_frames() {
    if !root_or_skip("zstd_in_several_frames") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let whole = layer();
    let (a, b) = whole.split_at(700);
    // A frame to skip, two frames, and one to skip again, as parallel and seekable writers make them.
    let skip = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"meta"].concat();
    let packed = [
        &skip,
        &zstd::encode_all(a, 1).unwrap(),
        &zstd::encode_all(b, 1).unwrap(),
        &skip,
    ]
    .map(|p| p.as_slice())
    .concat();
    let media = "application/vnd.oci.image.layer.v1.tar+zstd";
    common::layout_raw(
        tmp.path(),
        Some("z:1"),
        &[(packed, media)],
        &[Digest::of(&whole).to_string()],
    );
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    store.import_layout(tmp.path(), None).unwrap();
    let unpacked = store.unpack(&store.resolve("z:1").unwrap()).unwrap();
    assert!(unpacked.lowerdirs[0].join("etc/group").is_file());
}

/// Imports an image of one layer with this configuration, named `t:1`.
fn import(layer: &[u8], config: Value) -> (tempfile::TempDir, ImageStore, Result<(), String>) {
    let tmp = tempfile::tempdir().unwrap();
    let entry = image(tmp.path(), layer, config, &ours());
    let name = json!({"org.opencontainers.image.ref.name": "t:1"});
    layout(tmp.path(), &[with(entry, "annotations", name)]);
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let done = store.import_layout(tmp.path(), None);
    let done = done.map(drop).map_err(|e| chain(&e));
    (tmp, store, done)
}

#[test]
fn what_could_not_start_is_refused_with_what_is_wrong() {
    if !root_or_skip("what_could_not_start_is_refused_with_what_is_wrong") {
        return;
    }
    let cases = [
        (json!({"User": "nobody"}), "no user \"nobody\" in /etc/passwd"),
        (json!({"User": "app:wheel"}), "no group \"wheel\" in /etc/group"),
        (
            json!({"WorkingDir": "srv"}),
            "working directory `srv` is not absolute",
        ),
        (
            json!({"StopSignal": "SIGGO"}),
            "stop signal `SIGGO` does not exist",
        ),
        (json!({"Env": ["A=b", "PATH"]}), "`PATH`, which is not NAME=VALUE"),
        (json!({"Cmd": ["a\u{0}b"]}), "zero byte"),
        (
            json!({"User": "4294967295"}),
            "4294967295 (the image says so) is no user",
        ),
        (
            json!({"User": "0:4294967295"}),
            "is no group: ids are 0 to 2147483647",
        ),
        (json!({"User": "2147483648"}), "is no user"),
        (json!({"User": "odd"}), "4294967295 (/etc/passwd) is no user"),
        (json!({"User": "app:odd"}), "4294967295 (/etc/group) is no group"),
        (json!({"User": "\u{1b}[2J"}), "no user \"\\u{1b}[2J\""),
        (
            json!({"WorkingDir": "/bin/busybox"}),
            "working directory `/bin/busybox` is a file",
        ),
        (
            json!({"WorkingDir": "/bin/busybox/x"}),
            "`/bin/busybox/x` cannot be had: Not a directory",
        ),
        (
            json!({"WorkingDir": "/link"}),
            "working directory `/link` is a file",
        ),
        (
            json!({"WorkingDir": "/loop"}),
            "working directory `/loop` cannot be had",
        ),
        (
            json!({"WorkingDir": "/proc/self/fd/7"}),
            "`/proc/self/fd/7` leads into /proc",
        ),
        (
            json!({"WorkingDir": "/srv/../to-proc/self/cwd"}),
            "leads into /proc",
        ),
        (
            json!({"WorkingDir": "/sys/kernel"}),
            "leads into /proc, /sys or /dev",
        ),
        (
            json!({"WorkingDir": "//dev//shm"}),
            "leads into /proc, /sys or /dev",
        ),
        (json!({"WorkingDir": "\u{7}"}), "working directory `\\u{7}`"),
        (
            json!({"Volumes": {"/data": {}, "/link": {}}}),
            "volume `/link` is a file",
        ),
    ];
    let layer = Tar::new()
        .file("etc/passwd", "app:x:7:8::/srv:/bin/sh\nodd:x:4294967295:8::/:\n")
        .file("etc/group", "app:x:8:\nodd:x:4294967295:\n")
        .file("bin/busybox", "")
        .symlink("link", "bin/busybox")
        .symlink("loop", "loop")
        .symlink("to-proc", "proc")
        .done();
    for (config, expected) in cases {
        let (_tmp, store, done) = import(&layer, config.clone());
        let refused = done.unwrap_err();
        assert!(
            refused.contains(expected) && refused.contains("t:1@sha256:"),
            "{config}: {refused}"
        );
        assert_eq!(store.list().unwrap(), []);
    }
    let good = json!({"User": "app", "WorkingDir": "/not/there", "StopSignal": "SIGRTMIN+3", "Env": ["A="], "Cmd": null});
    let (_tmp, store, done) = import(&layer, good);
    done.unwrap();
    let image = store.resolve("t:1").unwrap();
    assert_eq!(image.config.stop_signal_number(), Some(37));
    // What is missing is made, also where a link leads to nothing yet; where a file system is mounted there is something.
    for dir in ["", "/", "/etc", "/to-proc", "/dev/", "/srv/proc/x"] {
        let (_tmp, _, done) = import(&layer, json!({"WorkingDir": dir}));
        done.unwrap();
    }
    // As a start takes it: root, and root's group.
    let (_tmp, _, done) = import(&layer, json!({"User": ":"}));
    done.unwrap();
    // Unpacked at import: the first start has nothing left to do.
    assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 1);
}

/// Where every container has something mounted, the image must have nothing that is in the way.
#[test]
fn what_nothing_can_be_mounted_over_is_refused() {
    if !root_or_skip("what_nothing_can_be_mounted_over_is_refused") {
        return;
    }
    let cases = [
        (Tar::new().symlink("proc", "run"), "its /proc is a link"),
        (Tar::new().dir("x").symlink("sys", "/x"), "its /sys is a link"),
        (Tar::new().file("dev", ""), "its /dev is a file"),
        (
            Tar::new().dir("etc").dir("etc/hosts"),
            "its /etc/hosts is a folder",
        ),
        (
            Tar::new().dir("etc").dir("etc/passwd"),
            "its /etc/passwd is a folder",
        ),
        (
            Tar::new().file("etc", ""),
            "its /etc/hostname cannot be mounted over: Not a directory",
        ),
        (
            Tar::new().dir("etc").symlink("etc/resolv.conf", "../proc/x"),
            "its /etc/resolv.conf leads to /proc",
        ),
        (
            Tar::new().dir("etc").symlink("etc/hosts", "hosts"),
            "its /etc/hosts cannot be mounted over",
        ),
    ];
    for (layer, expected) in cases {
        let (_tmp, _, done) = import(&layer.done(), json!({}));
        let refused = done.unwrap_err();
        assert!(
            refused.contains(expected) && refused.contains("mend it"),
            "{expected}: {refused}"
        );
    }
    let usual = Tar::new().dir("proc").dir("etc").file("etc/hosts", "");
    let usual = usual.symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    for layer in [usual, Tar::new().file("bin", "")] {
        import(&layer.done(), json!({})).2.unwrap();
    }
}
