//! Layouts and layers for the tests.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::Write;
use std::path::Path;

use gantry_images::{Digest, ImageStore, Limits};
use serde_json::json;
use tar::{EntryType, Header};

/// True if this test may run; says loudly why not, and fails if REQUIRE lists `images`.
pub fn root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {test} needs root");
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|r| r == "images"),
            "REQUIRE=images, but not root"
        );
    }
    root
}

/// A tar under construction; names go in raw, however bad they are.
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn entry(mut self, kind: EntryType, path: &str, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut h = Header::new_gnu();
        h.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        h.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        h.set_entry_type(kind);
        h.set_mode(mode);
        h.set_uid(12);
        h.set_gid(34);
        h.set_mtime(1_000_000);
        h.set_size(data.len() as u64);
        h.set_device_major(0).unwrap();
        h.set_device_minor(0).unwrap();
        h.set_cksum();
        self.0.extend_from_slice(h.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, 0o755, "", b"")
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, path, 0o644, "", data.as_bytes())
    }

    pub fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, to, b"")
    }

    pub fn hardlink(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Link, path, 0o644, to, b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (k, v) in records {
            let rest = k.len() + v.len() + 3;
            let len = (1..).find(|n: &usize| n.to_string().len() + rest == *n).unwrap();
            write!(data, "{len} {k}=").unwrap();
            data.extend_from_slice(v);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", 0o644, "", &data)
    }

    /// Gives the last entry, which has no data, to somebody else.
    pub fn of(mut self, uid: u64, gid: u64) -> Self {
        let at = self.0.len() - 512;
        let mut header = Header::from_byte_slice(&self.0[at..at + 512]).clone();
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_cksum();
        self.0[at..at + 512].copy_from_slice(header.as_bytes());
        self
    }

    pub fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

pub fn blob(dir: &Path, data: &[u8]) -> Digest {
    let digest = Digest::of(data);
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("blobs/sha256").join(digest.hex()), data).unwrap();
    digest
}

/// Writes a layout with one image of these layers (alternating gzip, zstd, plain).
pub fn layout(dir: &Path, name: Option<&str>, layers: &[Vec<u8>]) -> Digest {
    let packed: Vec<(Vec<u8>, &str)> = layers
        .iter()
        .enumerate()
        .map(|(n, l)| match n % 3 {
            0 => (gzip(l), "application/vnd.oci.image.layer.v1.tar+gzip"),
            1 => (
                zstd::encode_all(&l[..], 1).unwrap(),
                "application/vnd.oci.image.layer.v1.tar+zstd",
            ),
            _ => (l.clone(), "application/vnd.oci.image.layer.v1.tar"),
        })
        .collect();
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    layout_raw(dir, name, &packed, &diff_ids)
}

pub fn layout_raw(dir: &Path, name: Option<&str>, packed: &[(Vec<u8>, &str)], diff_ids: &[String]) -> Digest {
    let descriptor = |media: &str, data: &[u8]| json!({"mediaType": media, "digest": blob(dir, data).to_string(), "size": data.len()});
    let config = json!({"architecture": oci_spec::image::Arch::default().to_string(), "os": "linux",
        "config": {"Entrypoint": ["/bin/x"], "Env": ["A=b"], "User": "12:34"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = descriptor(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let layers: Vec<_> = packed
        .iter()
        .map(|(data, media)| descriptor(media, data))
        .collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    if let Some(name) = name {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(
        dir.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [entry]}).to_string(),
    )
    .unwrap();
    Digest::of(manifest.as_bytes())
}

/// A store with one imported image `t:1` of these layers.
pub fn store_with(dir: &Path, layers: &[Vec<u8>]) -> ImageStore {
    import(dir, layers, Limits::default()).unwrap()
}

/// The same within bounds, or what is wrong; then the store must be as if nothing had been.
pub fn import(dir: &Path, layers: &[Vec<u8>], limits: Limits) -> Result<ImageStore, String> {
    let from = dir.join("from");
    std::fs::create_dir_all(&from).unwrap();
    layout(&from, Some("t:1"), layers);
    let store = ImageStore::open_with(&dir.join("store"), limits).unwrap();
    match store.import_layout(&from, None) {
        Ok(_) => Ok(store),
        Err(e) => {
            assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
            assert_eq!(store.list().unwrap(), []);
            Err(chain(&e))
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
