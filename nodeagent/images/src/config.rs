//! What an image says about how to run it, and who its user is.

use std::path::Path;

use oci_spec::image::ImageConfiguration;

use crate::beneath;
use crate::signal::signal_number;
use crate::walk::Stack;

/// Largest /etc/passwd or /etc/group that is read, in bytes.
const ACCOUNT_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The part of the OCI image configuration that a runtime needs (image spec, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Command prefix.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the command where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// Absolute directory; empty means `/`.
    pub working_dir: String,
    /// Signal name such as `SIGTERM`; empty means the runtime's default.
    pub stop_signal: String,
}

impl ImageConfig {
    /// Takes what is needed from an OCI image configuration.
    pub fn from_oci(oci: &ImageConfiguration) -> Self {
        let Some(c) = oci.config() else {
            return Self::default();
        };
        Self {
            entrypoint: c.entrypoint().clone().unwrap_or_default(),
            cmd: c.cmd().clone().unwrap_or_default(),
            env: c.env().clone().unwrap_or_default(),
            user: c.user().clone().unwrap_or_default(),
            working_dir: c.working_dir().clone().unwrap_or_default(),
            stop_signal: c.stop_signal().clone().unwrap_or_default(),
        }
    }
}

impl ImageConfig {
    /// The signal that asks it to end; `None` means the runtime's default, or a name that is none.
    pub fn stop_signal_number(&self) -> Option<i32> {
        signal_number(&self.stop_signal)
    }

    /// What would keep a container of it from starting, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        if !self.working_dir.is_empty() && !self.working_dir.starts_with('/') {
            return Some(format!(
                "its working directory `{}` is not absolute",
                self.working_dir
            ));
        }
        if !self.stop_signal.is_empty() && self.stop_signal_number().is_none() {
            return Some(format!("its stop signal `{}` does not exist", self.stop_signal));
        }
        let nameless = |line: &&String| line.split_once('=').is_none_or(|(name, _)| name.is_empty());
        if let Some(line) = self.env.iter().find(nameless) {
            return Some(format!("its environment has `{line}`, which is not NAME=VALUE"));
        }
        let words = self.entrypoint.iter().chain(&self.cmd).chain(&self.env);
        let zero = |text: &&String| text.contains('\0');
        let mut words = words.chain([&self.user, &self.working_dir]);
        words.find(zero).map(|text| format!("{text:?} has a zero byte"))
    }
}

/// Numeric ids to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups from the image's /etc/group, sorted.
    pub groups: Vec<u32>,
    /// Home directory from the image's /etc/passwd, `/` if unknown.
    pub home: String,
}

/// A user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A name that the image's account files do not have.
    #[error("the image has no {what} {name:?} in {file}; name one that it has, or use a number")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The account file.
        file: &'static str,
    },
    /// An account file cannot be read.
    #[error(
        "cannot read {file} of the image under {root}; the image may be damaged, build or import it again"
    )]
    Read {
        /// The account file.
        file: &'static str,
        /// The root file system.
        root: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Resolves an image's `user` string by the account files inside `root` (a mounted root file system). Symbolic
/// links are followed inside `root` only.
pub fn resolve_user(root: &Path, user: &str) -> Result<ResolvedUser, UserError> {
    let passwd = account_file(root, "etc/passwd")?;
    let group = account_file(root, "etc/group")?;
    resolve_in(&passwd, &group, user)
}

/// The same for an image that is not mounted, by its layers, top first.
pub(crate) fn resolve_user_in_layers(
    layers: &[std::path::PathBuf],
    user: &str,
) -> Result<ResolvedUser, UserError> {
    let read = |file: &'static str| {
        let fail = |source| UserError::Read {
            file,
            root: layers
                .first()
                .map(|l| l.display().to_string())
                .unwrap_or_default(),
            source,
        };
        let stack = Stack::open(layers).map_err(fail)?;
        let path: Vec<Vec<u8>> = file.split('/').map(|part| part.as_bytes().to_vec()).collect();
        let node = stack.walk(&path, true).map_err(fail)?.node;
        let bytes = node
            .map(|node| node.read(ACCOUNT_FILE_LIMIT_BYTES))
            .transpose()
            .map_err(fail)?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    resolve_in(&read("etc/passwd")?, &read("etc/group")?, user)
}

fn resolve_in(passwd: &str, group: &str, user: &str) -> Result<ResolvedUser, UserError> {
    let (name, group_name) = match user.split_once(':') {
        Some((n, g)) => (n, Some(g)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let row = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 6 && (f[0] == name || (name.parse::<u32>().is_ok() && f[2] == name)));
    let (uid, mut gid, home, login) = match row.as_deref().and_then(|f| {
        Some((
            f[2].parse().ok()?,
            f[3].parse().ok()?,
            f[5].to_owned(),
            f[0].to_owned(),
        ))
    }) {
        Some(found) => found,
        None => {
            let uid = name.parse().map_err(|_| UserError::Unknown {
                what: "user",
                name: name.to_owned(),
                file: "/etc/passwd",
            })?;
            (uid, 0, String::new(), String::new())
        }
    };
    let groups: Vec<Vec<&str>> = group
        .lines()
        .map(|l| l.split(':').collect())
        .filter(|f: &Vec<&str>| f.len() >= 4)
        .collect();
    let mut supplementary = Vec::new();
    if let Some(wanted) = group_name.filter(|g| !g.is_empty()) {
        let by_name = groups
            .iter()
            .find(|f| f[0] == wanted)
            .and_then(|f| f[2].parse().ok());
        gid = by_name
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| UserError::Unknown {
                what: "group",
                name: wanted.to_owned(),
                file: "/etc/group",
            })?;
    } else if !login.is_empty() {
        let member = |f: &&Vec<&str>| f[3].split(',').any(|m| m == login);
        supplementary = groups
            .iter()
            .filter(member)
            .filter_map(|f| f[2].parse().ok())
            .collect();
        supplementary.sort_unstable();
        supplementary.dedup();
        supplementary.retain(|g| *g != gid);
    }
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(ResolvedUser {
        uid,
        gid,
        groups: supplementary,
        home,
    })
}

/// Empty if the file does not exist: images of one static binary have none.
fn account_file(root: &Path, file: &'static str) -> Result<String, UserError> {
    let fail = |source| UserError::Read {
        file,
        root: root.display().to_string(),
        source,
    };
    let dir = std::fs::File::open(root).map_err(fail)?;
    match beneath::read_in_root(&dir, Path::new(file), ACCOUNT_FILE_LIMIT_BYTES) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(fail(e)),
        Ok(data) => Ok(String::from_utf8_lossy(&data).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nkamailio:x:106:110::/run/kamailio:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nkamailio:x:110:\nssl:x:111:kamailio,other\n";

    #[test]
    fn users_and_groups() {
        let r = |u: &str| resolve_in(PASSWD, GROUP, u).map(|r| (r.uid, r.gid, r.groups, r.home));
        assert_eq!(r("").unwrap(), (0, 0, vec![], "/root".into()));
        assert_eq!(
            r("kamailio").unwrap(),
            (106, 110, vec![111], "/run/kamailio".into())
        );
        assert_eq!(r("106").unwrap(), (106, 110, vec![111], "/run/kamailio".into()));
        assert_eq!(
            r("kamailio:ssl").unwrap(),
            (106, 111, vec![], "/run/kamailio".into())
        );
        assert_eq!(r("4242:17").unwrap(), (4242, 17, vec![], "/".into()));
        assert!(
            r("nobody")
                .unwrap_err()
                .to_string()
                .contains("no user \"nobody\"")
        );
        assert!(r("0:wheel").unwrap_err().to_string().contains("no group"));
        assert!(r("99999999999").is_err());
    }

    #[test]
    fn account_files_are_read_inside_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", etc.join("passwd")).unwrap();
        // Points at itself once the root is the limit: ELOOP, never the host's file.
        assert!(resolve_user(root.path(), "root").is_err());
        std::fs::remove_file(etc.join("passwd")).unwrap();
        std::fs::write(root.path().join("accounts"), PASSWD).unwrap();
        std::os::unix::fs::symlink("/accounts", etc.join("passwd")).unwrap();
        assert_eq!(resolve_user(root.path(), "kamailio").unwrap().uid, 106);
    }
}
