//! Layers made before: what is known of one, and whether it still is what it was.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::EntryType;

use super::layer::Layer;
use super::tree::Entries;
use crate::archive;
use crate::digest::{Digest, HashingReader};
use crate::limits::Limits;
use crate::store::read_bounded;

/// Longest record, in bytes.
const RECORD_BYTES: u64 = 64 << 10;

/// A layer, as it is remembered.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LayerRecord {
    what: String,
    digest: String,
    size_bytes: u64,
    diff_id: String,
}

impl LayerRecord {
    pub(super) fn of(layer: &Layer) -> Self {
        Self {
            what: layer.what.clone(),
            digest: layer.digest.to_string(),
            size_bytes: layer.size_bytes,
            diff_id: layer.diff_id.to_string(),
        }
    }

    /// Of the compressed file.
    pub(super) fn digest(&self) -> Option<Digest> {
        Digest::parse(&self.digest)
    }

    fn layer(&self) -> Option<Layer> {
        Some(Layer {
            what: self.what.clone(),
            digest: self.digest()?,
            size_bytes: self.size_bytes,
            diff_id: Digest::parse(&self.diff_id)?,
        })
    }

    /// Links the file at `blob(digest)` into the scratch folder and reads it there, where nobody takes it away. `None` if it is
    /// missing, or is not what was recorded.
    pub(super) fn take(
        &self,
        scratch: &Path,
        blob: impl FnOnce(&Digest) -> std::path::PathBuf,
    ) -> io::Result<Option<(Layer, Entries)>> {
        let Some(layer) = self.layer() else {
            return Ok(None);
        };
        let own = scratch.join(layer.digest.hex());
        match fs::hard_link(blob(&layer.digest), &own) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        if let Ok((true, entries)) = read(&own, &layer) {
            return Ok(Some((layer, entries)));
        }
        fs::remove_file(&own)?;
        Ok(None)
    }
}

/// A record in a file; `None` if it is missing or makes no sense.
pub(super) fn load<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read_bounded(path, RECORD_BYTES).ok()?).ok()
}

/// Writes a record, which is there as a whole or not at all.
pub(super) fn save<T: Serialize>(path: &Path, scratch: &Path, record: &T) -> io::Result<()> {
    let new = scratch.join("record.new");
    let file = File::create(&new)?;
    serde_json::to_writer(&file, record)?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// Whether the file is this layer, and what is in it.
fn read(path: &Path, layer: &Layer) -> io::Result<(bool, Entries)> {
    let limits = Limits::default();
    let mut file = File::open(path)?;
    let mut blob = HashingReader::new(BufReader::with_capacity(1 << 17, &file), limits.blob_bytes);
    io::copy(&mut blob, &mut io::sink())?;
    if blob.finish() != (layer.digest.clone(), layer.size_bytes) {
        return Ok((false, Entries::new()));
    }
    file.rewind()?;
    let mut tar = HashingReader::new(zstd::Decoder::new(file)?, limits.layer_bytes);
    let mut entries = Entries::new();
    archive::for_each::<_, io::Error>(&mut tar, &limits, |mut meta, _| {
        meta.path = clean(&meta.path);
        if meta.kind == EntryType::Link {
            meta.link = meta.link.map(|link| clean(&link));
        }
        entries.insert(meta.path.clone(), meta);
        Ok(())
    })?;
    io::copy(&mut tar, &mut io::sink())?;
    Ok((tar.finish().0 == layer.diff_id, entries))
}

/// `./usr/bin/` to `usr/bin`.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|p| !matches!(*p, b"" | b"."))
        .collect();
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::super::layer::{LayerWriter, entry};
    use super::*;

    #[test]
    fn a_layer_is_taken_only_as_it_was_recorded() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        let mut writer = LayerWriter::create(tmp.path()).unwrap();
        let file = entry(b"etc/x", EntryType::Regular, 0o644, 2);
        writer.append(&file, &b"ab"[..]).unwrap();
        let layer = writer.finish("x".to_owned()).unwrap();
        fs::rename(at(layer.digest.hex()), at("blob")).unwrap();
        let path = at("record.json");
        save(&path, tmp.path(), &LayerRecord::of(&layer)).unwrap();
        let record: LayerRecord = load(&path).unwrap();
        let (taken, entries) = record.take(tmp.path(), |_| at("blob")).unwrap().unwrap();
        assert_eq!(taken.diff_id, layer.diff_id);
        assert_eq!(entries.keys().collect::<Vec<_>>(), [b"etc/x"]);
        fs::remove_file(at(layer.digest.hex())).unwrap();
        assert!(record.take(tmp.path(), |_| at("missing")).unwrap().is_none());
        let mut damaged = fs::read(at("blob")).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(at("blob"), damaged).unwrap();
        assert!(record.take(tmp.path(), |_| at("blob")).unwrap().is_none());
        assert!(!at(layer.digest.hex()).exists());
        fs::write(&path, "{").unwrap();
        assert!(load::<LayerRecord>(&path).is_none());
    }
}
