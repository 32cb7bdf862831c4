//! Reads tar streams entry by entry with bounds on everything, including the extended headers that the
//! `tar` crate would otherwise collect in memory without a limit.

use std::io::{self, Read};

use tar::EntryType;

use crate::limits::Limits;

/// What is known of one entry before its data.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Name as stored, raw bytes.
    pub path: Vec<u8>,
    /// Target of a symlink or hardlink.
    pub link: Option<Vec<u8>>,
    /// Type of the entry.
    pub kind: EntryType,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_s: u64,
    /// Length of the data that follows.
    pub size_bytes: u64,
    /// Extended attributes from `SCHILY.xattr.` PAX records.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Extended headers that apply to the entry after them.
#[derive(Default)]
struct Pending {
    /// Types of those seen. One of each may come: more would pile up without a limit.
    seen: Vec<EntryType>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime_s: Option<u64>,
    size_bytes: Option<u64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Calls `visit` for each entry of the tar in `reader`. Sparse entries are refused: no image builder writes them.
pub fn for_each<R: Read, E: From<io::Error>>(
    reader: R,
    limits: &Limits,
    mut visit: impl FnMut(Meta, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(reader);
    let mut pending = Pending::default();
    let mut count = 0;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        count += 1;
        if count > limits.layer_entries {
            return Err(io::Error::other(format!("has more than {} entries", limits.layer_entries)).into());
        }
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            kind @ (EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink) => {
                pending.take(kind, extension(&mut entry, limits)?)?;
            }
            _ => {
                let meta = std::mem::take(&mut pending).apply(&entry)?;
                visit(meta, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn extension<R: Read>(entry: &mut tar::Entry<'_, R>, limits: &Limits) -> io::Result<Vec<u8>> {
    let size_bytes = entry.header().size()?;
    if size_bytes > limits.extension_bytes {
        return Err(io::Error::other(format!(
            "has an extended header of {size_bytes} bytes, {} allowed",
            limits.extension_bytes
        )));
    }
    let mut data = Vec::new();
    entry.read_to_end(&mut data)?;
    Ok(data)
}

fn trim_nul(mut data: Vec<u8>) -> Vec<u8> {
    if data.last() == Some(&0) {
        data.pop();
    }
    data
}

impl Pending {
    fn take(&mut self, kind: EntryType, data: Vec<u8>) -> io::Result<()> {
        if self.seen.contains(&kind) {
            return Err(io::Error::other(
                "has two extended headers of one type before one entry",
            ));
        }
        self.seen.push(kind);
        match kind {
            EntryType::GNULongName => self.path = Some(trim_nul(data)),
            EntryType::GNULongLink => self.link = Some(trim_nul(data)),
            _ => self.take_pax(&data)?,
        }
        Ok(())
    }

    fn take_pax(&mut self, data: &[u8]) -> io::Result<()> {
        for record in tar::PaxExtensions::new(data) {
            let record = record?;
            let (Ok(key), value) = (record.key(), record.value_bytes()) else {
                return Err(io::Error::other("has a PAX record whose key is not UTF-8"));
            };
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "uid" => self.uid = Some(number(key, value)?),
                "gid" => self.gid = Some(number(key, value)?),
                "size" => self.size_bytes = Some(number(key, value)?),
                // Fractions and times before 1970 carry nothing that matters here.
                "mtime" => {
                    let whole = value.split(|b| *b == b'.').next().unwrap_or_default();
                    self.mtime_s = Some(number(key, whole).unwrap_or(0));
                }
                _ if key.starts_with("GNU.sparse") => {
                    return Err(io::Error::other(
                        "has a sparse entry; write the layer without sparse files",
                    ));
                }
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn apply<R: Read>(self, entry: &tar::Entry<'_, R>) -> io::Result<Meta> {
        let header = entry.header();
        let kind = header.entry_type();
        let size_bytes = header.entry_size()?;
        if kind.is_gnu_sparse() {
            return Err(io::Error::other(
                "has a sparse entry; write the layer without sparse files",
            ));
        }
        if self.size_bytes.is_some_and(|s| s != size_bytes) {
            return Err(io::Error::other(
                "has an entry whose PAX size contradicts its header",
            ));
        }
        let id = |pax: Option<u32>, field: u64| match pax {
            Some(id) => Ok(id),
            None => u32::try_from(field).map_err(|_| io::Error::other("has an owner beyond 32 bits")),
        };
        Ok(Meta {
            path: self.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: self
                .link
                .or_else(|| header.link_name_bytes().map(|l| l.into_owned())),
            kind,
            mode: header.mode()? & 0o7777,
            uid: id(self.uid, header.uid()?)?,
            gid: id(self.gid, header.gid()?)?,
            mtime_s: self.mtime_s.map_or_else(|| header.mtime(), Ok)?,
            size_bytes,
            xattrs: self.xattrs,
        })
    }
}

/// A name, or words with one, as it can be told: what a terminal would act on is escaped.
pub(crate) fn shown(text: &[u8]) -> String {
    let told = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    String::from_utf8_lossy(text).chars().map(told).collect()
}

fn number<T: std::str::FromStr>(key: &str, value: &[u8]) -> io::Result<T> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| io::Error::other(format!("has a PAX record {key} that is not a number in range")))
}
