//! What an image says about its process, merged with what the pod says: argv and user.

use std::path::Path;

use gantry_images::{Asked, UserError};
use gantry_nodeagent_api::Security;

use super::ContainerUser;

// One bound, in crates that do not know each other.
const _: () = assert!(gantry_images::MAX_ID == gantry_nodeagent_api::MAX_ID);

/// Neither image nor pod says what to run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no command specified: the image has neither an entrypoint nor a command; give the container a `command`"
)]
pub struct NoCommand;

/// The command line by the rules of Kubernetes: `command` replaces the image's entrypoint and its arguments too,
/// `args` replaces the image's arguments.
pub fn merge_argv(
    entrypoint: &[String],
    cmd: &[String],
    command: &[String],
    args: &[String],
) -> Result<Vec<String>, NoCommand> {
    let (program, rest) = match (command.is_empty(), args.is_empty()) {
        (true, true) => (entrypoint, cmd),
        (true, false) => (entrypoint, args),
        (false, _) => (command, args),
    };
    let argv: Vec<String> = program.iter().chain(rest).cloned().collect();
    if argv.is_empty() {
        return Err(NoCommand);
    }
    Ok(argv)
}

/// The numeric identity: the pod's `security` first, then the image's `user` (`name|uid[:group|gid]`, looked up in the mounted
/// root file system), then root. Supplementary groups are those that the image's group file lists for the user.
pub fn resolve_user(
    rootfs: &Path,
    image_user: &str,
    security: &Security,
) -> Result<ContainerUser, UserError> {
    let asked = Asked {
        user: security.user,
        group: security.group,
    };
    let found = gantry_images::resolve_user(rootfs, image_user, asked)?;
    Ok(ContainerUser {
        uid: found.uid,
        gid: found.gid,
        additional_gids: found.groups,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn command_and_args_replace_as_in_kubernetes() {
        let (e, c) = (strings(&["entry"]), strings(&["cmd"]));
        let merge_argv =
            |e: &_, c: &_, command: &_, args: &_| super::merge_argv(e, c, command, args).unwrap();
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
    fn nothing_to_run_is_said_as_kubernetes_says_it() {
        let said = merge_argv(&[], &[], &[], &[]).unwrap_err().to_string();
        assert!(said.starts_with("no command specified"), "{said}");
        assert_eq!(merge_argv(&[], &[], &[], &strings(&["x"])), Ok(strings(&["x"])));
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
