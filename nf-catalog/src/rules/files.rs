//! Rules of a package's files and directories.

use super::package::{MOST_VALUE_BYTES, size};
use super::{Problems, absolute_hint, dns_label_hint, is_below, is_clean_absolute, is_dns_label, is_key};
use crate::{NfPackageSpec, UpgradeStrategy};

/// Configuration files of a package.
const MOST_FILES: usize = 64;
/// All templates of a package in bytes: what a ConfigMap may hold, for they become one.
const MOST_TEMPLATE_BYTES: usize = 1 << 20;
/// The smallest volume in bytes: below it a file system of its own is mostly overhead.
const MIN_VOLUME_BYTES: u64 = 1 << 20;

impl NfPackageSpec {
    pub(super) fn file_problems(&self, found: &mut Problems) {
        let count = self.config.len();
        found.require(count <= MOST_FILES, "spec.config", || {
            format!("{count} files: {MOST_FILES} at most")
        });
        let bytes: usize = self.templates.values().map(String::len).sum();
        found.require(bytes <= MOST_TEMPLATE_BYTES, "spec.templates", || {
            format!("{bytes} bytes of templates: {MOST_TEMPLATE_BYTES} at most")
        });
        found.require(size(&self.values) <= MOST_VALUE_BYTES, "spec.values", || {
            format!("the values are larger than {MOST_VALUE_BYTES} bytes")
        });
        self.config_problems(found);
        self.secret_problems(found);
        self.volume_problems(found);
        self.hiding_problems(found);
        self.reload_problems(found);
    }

    fn config_problems(&self, found: &mut Problems) {
        let shared: Vec<&str> = self
            .config
            .iter()
            .filter(|file| !file.instance)
            .map(|file| file.path.as_str())
            .chain(self.secrets.iter().map(|file| file.path.as_str()))
            .collect();
        for (i, file) in self.config.iter().enumerate() {
            let path = format!("spec.config[{i}]");
            found.require(is_clean_absolute(&file.path), &format!("{path}.path"), || {
                absolute_hint(&file.path)
            });
            let key = file.key();
            found.require(is_key(&key), &format!("{path}.path"), || {
                format!(
                    "`{}` has others than letters, digits, `-`, `_`, `.` and `/`",
                    file.path
                )
            });
            if let Some(other) = self.config[..i].iter().find(|other| other.key() == key) {
                let message = format!("`{}` and `{}` are one key of a ConfigMap", other.path, file.path);
                found.add(&format!("{path}.path"), message);
            }
            found.require(
                self.templates.contains_key(&file.template),
                &format!("{path}.template"),
                || format!("there is no file `{}` beside the descriptor", file.template),
            );
            let directory = file.directory();
            found.require(
                !file.instance || !directory.is_empty(),
                &format!("{path}.path"),
                || "files of an instance need a directory of their own below the root".to_owned(),
            );
            let beside = |other: &&&str| is_below(other, directory);
            if let Some(other) = shared.iter().find(beside).filter(|_| file.instance) {
                let message = format!(
                    "`{directory}` is replaced as a whole with each change, and cannot hold `{other}`: choose a directory of its own"
                );
                found.add(&format!("{path}.path"), message);
            }
        }
    }

    fn secret_problems(&self, found: &mut Problems) {
        found.unique("spec.secrets", self.secrets.iter().map(|s| s.path.as_str()));
        for (i, file) in self.secrets.iter().enumerate() {
            let path = format!("spec.secrets[{i}]");
            found.require(is_dns_label(&file.secret), &format!("{path}.secret"), || {
                dns_label_hint(&file.secret)
            });
            found.require(is_key(&file.key), &format!("{path}.key"), || {
                format!("`{}` is no key: letters, digits, `-`, `_` and `.`", file.key)
            });
            found.require(is_clean_absolute(&file.path), &format!("{path}.path"), || {
                absolute_hint(&file.path)
            });
            found.require(
                !self.config.iter().any(|other| other.path == file.path),
                &format!("{path}.path"),
                || format!("`{}` is a file of spec.config, too", file.path),
            );
            let need = file.peer.as_deref();
            let known = need.is_none_or(|need| self.needs.iter().any(|n| n.function == need));
            found.require(known, &format!("{path}.peer"), || {
                format!("there is no need `{}`", need.unwrap_or_default())
            });
        }
    }

    fn volume_problems(&self, found: &mut Problems) {
        found.unique("spec.volumes", self.volumes.iter().map(|v| v.name.as_str()));
        for (i, volume) in self.volumes.iter().enumerate() {
            let path = format!("spec.volumes[{i}]");
            found.require(is_dns_label(&volume.name), &format!("{path}.name"), || {
                dns_label_hint(&volume.name)
            });
            found.require(is_clean_absolute(&volume.path), &format!("{path}.path"), || {
                absolute_hint(&volume.path)
            });
            found.require(volume.size.0 >= MIN_VOLUME_BYTES, &format!("{path}.size"), || {
                format!("{} bytes are too few: at least 1Mi", volume.size.0)
            });
        }
        let replaces = self.upgrade.strategy == UpgradeStrategy::Replace;
        let owns = !self.volumes.is_empty() || self.interfaces.iter().any(|i| i.subnet.is_some());
        found.require(replaces || !owns, "spec.upgrade.strategy", || {
            "what an instance owns (volumes, a subnet) goes by its number, so that the old one goes before the new one comes: say `replace`"
                .to_owned()
        });
    }

    /// What is mounted later hides what is below it: files come first, then volumes, then scratch.
    fn hiding_problems(&self, found: &mut Problems) {
        let files = self.config.iter().map(|file| file.path.as_str());
        let mut below: Vec<&str> = files
            .chain(self.secrets.iter().map(|s| s.path.as_str()))
            .collect();
        for (i, volume) in self.volumes.iter().enumerate() {
            found.hides(&volume.path, &below, &format!("spec.volumes[{i}].path"));
        }
        below.extend(self.volumes.iter().map(|volume| volume.path.as_str()));
        for (i, container) in self.containers.iter().enumerate() {
            for (k, directory) in container.scratch.iter().enumerate() {
                found.hides(directory, &below, &format!("spec.containers[{i}].scratch[{k}]"));
            }
        }
    }

    fn reload_problems(&self, found: &mut Problems) {
        found.unique("spec.reload", self.reload.iter().map(|r| r.container.as_str()));
        for (i, reload) in self.reload.iter().enumerate() {
            let path = format!("spec.reload[{i}]");
            let known = self.containers.iter().any(|c| c.name == reload.container);
            found.require(known, &format!("{path}.container"), || {
                format!("there is no container `{}`", reload.container)
            });
            found.require(reload.signal.is_some() != reload.exec.is_some(), &path, || {
                "exactly one of signal and exec is needed".to_owned()
            });
            found.require(self.config.iter().any(|file| file.instance), &path, || {
                "no file of spec.config is an instance's, so that none is ever replaced".to_owned()
            });
        }
    }
}
