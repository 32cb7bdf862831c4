//! What pods mount of the host, looked at and made before they start.
//!
//! Source: k8s.io/kubernetes/pkg/volume/hostpath, `checkTypeInternal`.

use std::fs::{self, DirBuilder, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use gantry_nodeagent_api::HostPathType;

use super::RuntimeError;

/// Modes of what is made, whatever the umask is.
const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// An error says what is there instead.
pub(super) fn prepare(volume: &str, path: &str, wanted: HostPathType) -> Result<(), RuntimeError> {
    let at = Path::new(path);
    let find = || fs::metadata(at).map(|found| found.file_type());
    let found = match find() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && makes(wanted) => {
            make(at, wanted).map_err(|e| RuntimeError::io("make host path", at, e))?;
            find()
        }
        found => found,
    };
    let found = found.map_err(|e| RuntimeError::io("find host path", at, e))?;
    if fits(found, wanted) {
        return Ok(());
    }
    Err(RuntimeError::Refused(format!(
        "volume {volume} wants a host path of type {wanted:?}, and {path} is a {}: mend the path or its type",
        name(found)
    )))
}

fn makes(wanted: HostPathType) -> bool {
    matches!(
        wanted,
        HostPathType::DirectoryOrCreate | HostPathType::FileOrCreate
    )
}

fn make(path: &Path, wanted: HostPathType) -> io::Result<()> {
    if wanted == HostPathType::FileOrCreate {
        // Its directory must be there, as in Kubernetes.
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(FILE_MODE).open(path)?;
        return made.set_permissions(Permissions::from_mode(FILE_MODE));
    }
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(DIR_MODE))
}

fn fits(found: FileType, wanted: HostPathType) -> bool {
    match wanted {
        HostPathType::Any => true,
        HostPathType::Directory | HostPathType::DirectoryOrCreate => found.is_dir(),
        HostPathType::File | HostPathType::FileOrCreate => found.is_file(),
        HostPathType::Socket => found.is_socket(),
        HostPathType::CharDevice => found.is_char_device(),
        HostPathType::BlockDevice => found.is_block_device(),
    }
}

fn name(found: FileType) -> &'static str {
    let kinds = [
        (found.is_dir(), "directory"),
        (found.is_file(), "file"),
        (found.is_socket(), "socket"),
        (found.is_char_device(), "character device"),
        (found.is_block_device(), "block device"),
    ];
    let known = kinds.into_iter().find(|(is, _)| *is);
    known.map_or("pipe", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_there_is_what_is_wanted_or_the_start_waits() {
        use HostPathType::*;
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "kept").unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let all = [
            Any,
            Directory,
            DirectoryOrCreate,
            File,
            FileOrCreate,
            Socket,
            CharDevice,
            BlockDevice,
        ];
        for (path, what, fitting) in [
            (at("dir"), "directory", &[Any, Directory, DirectoryOrCreate][..]),
            (at("file"), "file", &[Any, File, FileOrCreate]),
            (at("socket"), "socket", &[Any, Socket]),
            ("/dev/null".to_owned(), "character device", &[Any, CharDevice]),
        ] {
            for wanted in all {
                let done = prepare("v", &path, wanted);
                assert_eq!(done.is_ok(), fitting.contains(&wanted), "{path} {wanted:?}");
                if let Err(e) = done {
                    let expected =
                        format!("volume v wants a host path of type {wanted:?}, and {path} is a {what}");
                    assert!(e.to_string().starts_with(&expected), "{e}");
                }
            }
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "kept");
    }

    #[test]
    fn what_is_not_there_is_made_if_that_is_wanted() {
        use HostPathType::*;
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
        for wanted in [Any, Directory, File, Socket, CharDevice, BlockDevice] {
            assert!(
                prepare("v", &at("none"), wanted)
                    .unwrap_err()
                    .to_string()
                    .contains("/none")
            );
        }
        let mode = |path: String| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        prepare("v", &at("a/b"), DirectoryOrCreate).unwrap();
        prepare("v", &at("a/file"), FileOrCreate).unwrap();
        assert_eq!((mode(at("a/b")), mode(at("a/file"))), (DIR_MODE, FILE_MODE));
        assert!(prepare("v", &at("c/file"), FileOrCreate).is_err());
        // A link to nothing is followed by nobody.
        std::os::unix::fs::symlink(at("elsewhere"), at("link")).unwrap();
        for wanted in [DirectoryOrCreate, FileOrCreate] {
            assert!(prepare("v", &at("link"), wanted).is_err());
            assert!(!Path::new(&at("elsewhere")).exists());
        }
    }
}
