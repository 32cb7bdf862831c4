//! What an image says about its process, merged with what the pod says: argv and user.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use gantry_nodeagent_api::Security;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::ContainerUser;

/// Largest `/etc/passwd` or `/etc/group` that is read.
const MAX_BYTES: u64 = 4 << 20;

/// A user or group name of the image that cannot be turned into a number.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image's passwd or group file could not be read.
    #[error("cannot read {file} of the image at {}", rootfs.display())]
    Read {
        /// Root of the image.
        rootfs: PathBuf,
        /// Which file.
        file: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The name is in neither.
    #[error(
        "the image runs as `{name}`, which its {file} does not know; set the user in the package's security section"
    )]
    Unknown {
        /// User or group name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
}

/// The command line by the rules of Kubernetes: `command` replaces the image's entrypoint and its arguments too,
/// `args` replaces the image's arguments.
pub fn merge_argv(entrypoint: &[String], cmd: &[String], command: &[String], args: &[String]) -> Vec<String> {
    let (program, rest) = match (command.is_empty(), args.is_empty()) {
        (true, true) => (entrypoint, cmd),
        (true, false) => (entrypoint, args),
        (false, _) => (command, args),
    };
    program.iter().chain(rest).cloned().collect()
}

/// The numeric identity: the pod's `security` first, then the image's `user` (`name|uid[:group|gid]`, looked up in the mounted
/// root file system), then root. Supplementary groups are those that the image's group file lists for the user.
pub fn resolve_user(
    rootfs: &Path,
    image_user: &str,
    security: &Security,
) -> Result<ContainerUser, UserError> {
    let passwd = read(rootfs, "etc/passwd")?;
    let group = read(rootfs, "etc/group")?;
    let (user, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image_user, None),
    };
    let uid = match (security.user, user) {
        (Some(uid), _) => uid,
        (None, "") => 0,
        (None, name) => number(&passwd, name).ok_or_else(|| UserError::Unknown {
            name: name.to_owned(),
            file: "/etc/passwd",
        })?,
    };
    let entry = fields(&passwd).find(|f| f.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    let primary = entry.as_ref().and_then(|f| f.get(3)?.parse().ok()).unwrap_or(0);
    let gid = match (security.group, image_group) {
        (Some(gid), _) => gid,
        (None, Some(name)) if security.user.is_none() => {
            number(&group, name).ok_or_else(|| UserError::Unknown {
                name: name.to_owned(),
                file: "/etc/group",
            })?
        }
        _ => primary,
    };
    let additional_gids = entry.map(|f| memberships(&group, f[0], gid)).unwrap_or_default();
    Ok(ContainerUser {
        uid,
        gid,
        additional_gids,
    })
}

fn memberships(group: &str, user: &str, primary: u32) -> Vec<u32> {
    let lists = |f: &Vec<&str>| {
        f.get(3)
            .is_some_and(|members| members.split(',').any(|m| m == user))
    };
    fields(group)
        .filter(lists)
        .filter_map(|f| f[2].parse().ok())
        .filter(|gid| *gid != primary)
        .collect()
}

fn fields(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|f| f.len() >= 3)
}

/// The id of a name, or the name itself where it is a number.
fn number(file: &str, name: &str) -> Option<u32> {
    name.parse()
        .ok()
        .or_else(|| fields(file).find(|f| f[0] == name)?[2].parse().ok())
}

/// Reads a file of the image without leaving it by a symbolic link; empty if there is none.
/// The containers may have put anything there in an earlier run: a pipe that nobody writes, a file without end.
fn read(rootfs: &Path, file: &'static str) -> Result<String, UserError> {
    let fail = |source| UserError::Read {
        rootfs: rootfs.to_owned(),
        file,
        source,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = openat(CWD, rootfs, flags | OFlags::DIRECTORY, Mode::empty()).map_err(|e| fail(e.into()))?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, file, flags | OFlags::NONBLOCK, Mode::empty(), inside) {
        Ok(fd) => {
            let opened = File::from(fd);
            let found = opened.metadata().map_err(fail)?;
            if !found.is_file() || found.len() > MAX_BYTES {
                let what = format!("it must be a file of at most {MAX_BYTES} bytes");
                return Err(fail(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
            let mut text = String::new();
            opened.take(MAX_BYTES).read_to_string(&mut text).map_err(fail)?;
            Ok(text)
        }
        Err(rustix::io::Errno::NOENT) => Ok(String::new()),
        Err(e) => Err(fail(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn command_and_args_replace_as_in_kubernetes() {
        let (e, c) = (strings(&["entry"]), strings(&["cmd"]));
        assert_eq!(merge_argv(&e, &c, &[], &[]), strings(&["entry", "cmd"]));
        assert_eq!(
            merge_argv(&e, &c, &[], &strings(&["x"])),
            strings(&["entry", "x"])
        );
        assert_eq!(merge_argv(&e, &c, &strings(&["p"]), &[]), strings(&["p"]));
        assert_eq!(
            merge_argv(&e, &c, &strings(&["p"]), &strings(&["x"])),
            strings(&["p", "x"])
        );
    }

    #[test]
    fn users_come_from_the_pod_then_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:\nkam:x:104:105::/:\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\nkam:x:105:\nssl:x:106:a,kam\n",
        )
        .unwrap();
        let user = |uid, gid, more: &[u32]| ContainerUser {
            uid,
            gid,
            additional_gids: more.to_vec(),
        };
        let free = Security::default();
        assert_eq!(resolve_user(dir.path(), "", &free).unwrap(), user(0, 0, &[]));
        assert_eq!(
            resolve_user(dir.path(), "kam", &free).unwrap(),
            user(104, 105, &[106])
        );
        assert_eq!(
            resolve_user(dir.path(), "kam:ssl", &free).unwrap(),
            user(104, 106, &[])
        );
        assert_eq!(resolve_user(dir.path(), "7:8", &free).unwrap(), user(7, 8, &[]));
        let set = Security {
            user: Some(9),
            ..Security::default()
        };
        assert_eq!(
            resolve_user(dir.path(), "kam:ssl", &set).unwrap(),
            user(9, 0, &[])
        );
        let unknown = resolve_user(dir.path(), "nobody-here", &free)
            .unwrap_err()
            .to_string();
        assert!(unknown.contains("nobody-here"), "{unknown}");
    }

    #[test]
    fn neither_a_pipe_nor_an_endless_file_stops_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(resolve_user(dir.path(), "", &Security::default()).is_err());
        std::fs::remove_file(etc.join("passwd")).unwrap();
        let sparse = File::create(etc.join("passwd")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(resolve_user(dir.path(), "", &Security::default()).is_err());
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        assert!(resolve_user(dir.path(), "daemon", &Security::default()).is_err());
    }
}
