//! Hugepage limits (admin-guide/cgroup-v1/hugetlb.rst; the same in v2 under other file names).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::{number, read, write_if_other};
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
        for (size, prefix) in page_sizes(&dir)? {
            let bytes = wanted.get(&size).copied().unwrap_or(0).to_string();
            for suffix in self.hugetlb_suffixes() {
                let file = dir.join(format!("{prefix}{suffix}"));
                if file.exists() {
                    write_if_other(&file, &bytes)?;
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
            Hierarchy::V2(_) => [".max", ".rsvd.max"],
        }
    }
}

/// Page size in bytes and file name prefix (`hugetlb.2MB`) of each size that the kernel has.
fn page_sizes(dir: &Path) -> Result<Vec<(u64, String)>, CgroupError> {
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
    Ok(sizes.into_iter().collect())
}
