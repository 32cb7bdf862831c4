//! An image of one file, where tests need a container and not a network function.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gantry_images::Digest;
use serde_json::{Value, json};

/// Name of the image.
pub const IMAGE: &str = "busybox:1";
const PROGRAM: &str = "/bin/busybox";
const TOOLS: [&str; 12] = [
    "sh", "sleep", "cat", "echo", "touch", "httpd", "nc", "rm", "tail", "tar", "test", "wc",
];

/// Whether this machine has the program.
pub fn is_there() -> bool {
    Path::new(PROGRAM).is_file()
}

/// Writes an OCI layout with the image below `dir`, and returns where.
pub fn layout(dir: &Path) -> Result<PathBuf> {
    let layer = layer()?;
    let diff_id = Digest::of(&layer);
    layout_of(dir, IMAGE, "layer.v1.tar", &layer, &diff_id)
}

/// Writes an OCI layout with an image of one layer, of this media type below `application/vnd.oci.image.`.
pub fn layout_of(dir: &Path, image: &str, media: &str, layer: &[u8], diff_id: &Digest) -> Result<PathBuf> {
    let to = dir.join("layout");
    fs::create_dir_all(to.join("blobs/sha256"))?;
    let blob = |media: &str, bytes: &[u8]| -> Result<Value> {
        let digest = Digest::of(bytes);
        fs::write(to.join("blobs/sha256").join(digest.hex()), bytes)?;
        let media = format!("application/vnd.oci.image.{media}");
        Ok(json!({"mediaType": media, "digest": digest.to_string(), "size": bytes.len()}))
    };
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sh", "-c"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let layers = [blob(media, layer)?];
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let mut entry = blob("manifest.v1+json", manifest.as_bytes())?;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": image});
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(to.join("index.json"), index.to_string())?;
    Ok(to)
}

fn layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let program = fs::read(PROGRAM).context("apt-get install busybox-static")?;
    tar.append_data(
        &mut header(0o755, program.len() as u64),
        "bin/busybox",
        &program[..],
    )?;
    for tool in TOOLS {
        let mut link = header(0o777, 0);
        link.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut link, format!("bin/{tool}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}
