//! Whether an image can be started, before it gets its name: what a start would find wrong is found here.

use std::io;
use std::path::PathBuf;

use rustix::fs::FileType;

use super::{Image, ImageStore, Scratch};
use crate::unpack::UnpackError;
use crate::user::{UserError, resolve_user_in_layers};
use crate::walk::{Stack, Way};

/// Where each container has a file system of its own.
const SYSTEM: [&str; 3] = ["proc", "sys", "dev"];
/// Where each container has a file of its own.
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// Where users and groups are looked up.
const ACCOUNTS: [&str; 2] = ["etc/passwd", "etc/group"];

/// An image that no container could be started from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A layer.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Its user.
    #[error("image {image} could not be started")]
    User {
        /// The image.
        image: String,
        /// What is wrong with the user.
        #[source]
        source: UserError,
    },
    /// Another part of its configuration.
    #[error("image {image} could not be started: {why}; mend it where it is built")]
    Config {
        /// The image.
        image: String,
        /// What is wrong.
        why: String,
    },
}

impl ImageStore {
    /// Checks configuration and layers of an image whose blobs lie in `scratch`. Its layers are unpacked for good: the first
    /// start finds them done. Who is not root cannot unpack, and finds out at the first start.
    pub(crate) fn check_start(&self, scratch: &Scratch, image: &Image) -> Result<(), StartError> {
        if let Some(why) = image.config.problem() {
            let image = image.pinned();
            return Err(StartError::Config { image, why });
        }
        if !rustix::process::geteuid().is_root() {
            tracing::warn!(
                image = image.pinned(),
                "its layers are not checked: that needs root"
            );
            return Ok(());
        }
        let unpacked = self.unpack_from(image, &|blob| scratch.path().join(blob.hex()))?;
        let layers = &unpacked.lowerdirs;
        let config = &image.config;
        let no_volume = || {
            config
                .volumes
                .iter()
                .find_map(|path| no_folder(layers, "volume", path))
        };
        let obstacle = obstacle(layers)
            .or_else(|| no_folder(layers, "working directory", &config.working_dir))
            .or_else(no_volume);
        if let Some(why) = obstacle {
            let image = image.pinned();
            return Err(StartError::Config { image, why });
        }
        let user = resolve_user_in_layers(&unpacked.lowerdirs, &image.config.user);
        user.map(drop).map_err(|source| StartError::User {
            image: image.pinned(),
            source,
        })
    }
}

/// What keeps every container from having its own `/proc`, `/etc/hosts` and so on.
fn obstacle(layers: &[PathBuf]) -> Option<String> {
    let walk = |path: &str, follow| {
        let parts: Vec<Vec<u8>> = path.split('/').map(|part| part.as_bytes().to_vec()).collect();
        Stack::open(layers)?.walk(&parts, follow)
    };
    let system = SYSTEM.iter().find_map(|path| match walk(path, false) {
        Ok(way) => way.node.map(|node| {
            let kind = FileType::from_raw_mode(node.stat.st_mode);
            let what = if kind == FileType::Symlink { "link" } else { "file" };
            format!(
                "its /{path} is a {what}, and must be a folder or missing: a file system is mounted there"
            )
        }),
        Err(e) => Some(format!("its /{path} cannot be looked up: {e}")),
    });
    let files = || {
        let no_file = |path| Some(format!("its /{path} {}", no_file(walk(path, true))?));
        FILES.into_iter().find_map(no_file)
    };
    let accounts = || {
        let folder = ACCOUNTS
            .into_iter()
            .find(|path| walk(path, true).is_ok_and(|way| is_folder(&way)))?;
        Some(format!(
            "its /{folder} is a folder, and must be a file or missing: users are looked up in it"
        ))
    };
    system.or_else(files).or_else(accounts)
}

fn is_folder(way: &Way) -> bool {
    way.node.is_none() && way.missing.is_empty()
}

/// Why a container cannot have a folder that is made where it is missing.
fn no_folder(layers: &[PathBuf], what: &str, path: &str) -> Option<String> {
    let parts: Vec<Vec<u8>> = path.split('/').map(|part| part.as_bytes().to_vec()).collect();
    let shown = path.escape_debug();
    let way = match Stack::open(layers).and_then(|stack| stack.walk(&parts, true)) {
        Ok(way) => way,
        Err(e) => return Some(format!("its {what} `{shown}` cannot be had: {e}")),
    };
    if way.node.is_some() {
        return Some(format!("its {what} `{shown}` is a file"));
    }
    let mut names = way.dirs.iter().chain(&way.missing);
    let is_system = |name: &Vec<u8>| SYSTEM.iter().any(|system| system.as_bytes() == name.as_slice());
    // The top of such a file system is always there; what is below is not the image's.
    let below = names.next().is_some_and(is_system) && names.next().is_some();
    below.then(|| {
        format!("its {what} `{shown}` leads into /proc, /sys or /dev, where a container has its own files")
    })
}

/// Why no file can be mounted over what a path leads to.
fn no_file(way: io::Result<Way>) -> Option<String> {
    let way = match way {
        Ok(way) => way,
        Err(e) => return Some(format!("cannot be mounted over: {e}")),
    };
    let first = way.dirs.first().or(way.missing.first());
    if first.is_some_and(|name| [b"proc".as_slice(), b"sys"].contains(&name.as_slice())) {
        return Some("leads to /proc or /sys, and must be a file or missing".to_owned());
    }
    is_folder(&way).then(|| "is a folder, and must be a file or missing: a file is mounted there".to_owned())
}
