//! Hugepage limits (admin-guide/cgroup-v1/hugetlb.rst; the same in v2 under other file names).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{number, read, write, write_if_other};
use super::{CgroupError, Cgroups, Hierarchy};

impl Cgroups {
    pub(super) fn set_hugepages(&self, group: &str, wanted: &BTreeMap<u64, u64>) -> Result<(), CgroupError> {
        let Some(dir) = self.hugetlb_dir(group)? else {
            let asked = wanted.values().any(|bytes| *bytes > 0);
            return if asked {
                Err(CgroupError::NoController {
                    controller: "hugetlb",
                })
            } else {
                Ok(())
            };
        };
        let sizes = page_sizes(&dir)?;
        if let Some((size, _)) =
            (wanted.iter()).find(|(size, bytes)| **bytes > 0 && !sizes.contains_key(size))
        {
            return Err(CgroupError::NoPageSize { page_bytes: *size });
        }
        let mut written: Vec<(PathBuf, String)> = Vec::new();
        for (size, prefix) in sizes {
            let bytes = wanted.get(&size).copied().unwrap_or(0);
            for suffix in self.hugetlb_suffixes() {
                let file = dir.join(format!("{prefix}{suffix}"));
                if !file.exists() {
                    continue;
                }
                let changed = read(&file).and_then(|before| {
                    write_if_other(&file, &bytes.to_string())?;
                    Ok(before)
                });
                match changed {
                    Ok(before) => written.push((file, before)),
                    Err(error) => {
                        // What was allowed a moment ago is allowed again.
                        for (file, before) in &written {
                            let _ = write(file, before);
                        }
                        return Err(in_use(error, group, size, bytes));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn hugepages_in_force(&self, group: &str) -> Result<BTreeMap<u64, u64>, CgroupError> {
        let mut found = BTreeMap::new();
        let Some(dir) = self.hugetlb_dir(group)? else {
            return Ok(found);
        };
        for (size, prefix) in page_sizes(&dir)? {
            let text = read(&dir.join(format!("{prefix}{}", self.hugetlb_suffixes()[0])))?;
            found.extend(
                number(&text)
                    .filter(|bytes| *bytes > 0)
                    .map(|bytes| (size, bytes)),
            );
        }
        Ok(found)
    }

    fn hugetlb_dir(&self, group: &str) -> Result<Option<PathBuf>, CgroupError> {
        match self.hierarchy.mount("hugetlb") {
            Some(_) => self.dir("hugetlb", group).map(Some),
            None => Ok(None),
        }
    }

    fn hugetlb_suffixes(&self) -> [&'static str; 2] {
        match self.hierarchy {
            Hierarchy::V1(_) => [".limit_in_bytes", ".rsvd.limit_in_bytes"],
            Hierarchy::V2 { .. } => [".max", ".rsvd.max"],
        }
    }
}

/// The kernel answers EBUSY to a limit below use.
fn in_use(error: CgroupError, group: &str, page_bytes: u64, wanted_bytes: u64) -> CgroupError {
    match error {
        CgroupError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            CgroupError::HugepagesInUse {
                group: group.to_owned(),
                page_bytes,
                wanted_bytes,
            }
        }
        other => other,
    }
}

/// Page size in bytes and file name prefix (`hugetlb.2MB`) of each size that the kernel has.
fn page_sizes(dir: &Path) -> Result<BTreeMap<u64, String>, CgroupError> {
    let fail = |source| CgroupError::Io {
        operation: "list".to_owned(),
        path: dir.to_owned(),
        source,
    };
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let Some(name) = name.to_str().and_then(|n| n.strip_prefix("hugetlb.")) else {
            continue;
        };
        let label = name.split('.').next().unwrap_or_default();
        let (digits, unit) = label.split_at(label.find(|c: char| !c.is_ascii_digit()).unwrap_or(label.len()));
        let shift = match unit {
            "KB" => 10,
            "MB" => 20,
            "GB" => 30,
            _ => continue,
        };
        if let Ok(count) = digits.parse::<u64>() {
            sizes.insert(count << shift, format!("hugetlb.{label}"));
        }
    }
    Ok(sizes)
}
