//! Files of a volume, changed all at once: a reader sees the old ones or the new ones, never some of each.
//!
//! As in Kubernetes: the files are in a directory of their own, the link `..data` leads to it, and the names that a container
//! knows are links through `..data`. A change writes another directory, and renames another `..data` over the first.
//! Source: k8s.io/kubernetes/pkg/volume/util, `AtomicWriter`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use gantry_nodeagent_api::{VolumeFile, is_sub_path};

use super::RuntimeError;

const DATA: &str = "..data";
/// Names that begin like this are not the container's.
const OWN: &str = "..";

/// Makes the volume at `dir` hold exactly these files, for the pod's group if it has one. May be repeated.
pub(super) fn write(
    dir: &Path,
    files: &BTreeMap<String, VolumeFile>,
    group: Option<u32>,
) -> Result<(), RuntimeError> {
    let within = |path: &&String| is_sub_path(path) && !path.starts_with(OWN);
    if let Some(bad) = files.keys().find(|path| !within(path)) {
        return Err(RuntimeError::Refused(format!(
            "`{bad}` is no file within a volume"
        )));
    }
    fs::create_dir_all(dir).map_err(|e| RuntimeError::io("create directory", dir, e))?;
    let failed = |e| RuntimeError::io("write the files of", dir, e);
    if !is_written(dir, files, group).map_err(failed)? {
        replace(dir, files, group).map_err(failed)?;
    }
    show(dir, files).map_err(failed)
}

/// Files were written there before.
pub(super) fn is_in_use(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn is_written(dir: &Path, files: &BTreeMap<String, VolumeFile>, group: Option<u32>) -> io::Result<bool> {
    let data = dir.join(DATA);
    if let Err(e) = fs::symlink_metadata(&data) {
        return if e.kind() == io::ErrorKind::NotFound {
            Ok(false)
        } else {
            Err(e)
        };
    }
    Ok(count(&data)? == files.len()
        && files
            .iter()
            .all(|(path, file)| holds(&data.join(path), &file.data, mode(file, group))))
}

/// Regular files below a directory that only the agent writes.
fn count(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

/// The mode that a file gets: the pod's group may read it, as in Kubernetes.
fn mode(file: &VolumeFile, group: Option<u32>) -> u32 {
    file.mode | if group.is_some() { 0o440 } else { 0 }
}

/// Whether a file has this content and mode: never more of it is read.
pub(super) fn holds(path: &Path, data: &[u8], mode: u32) -> bool {
    let same = || -> io::Result<bool> {
        let opened = File::open(path)?;
        let meta = opened.metadata()?;
        if meta.len() != data.len() as u64 || meta.permissions().mode() & 0o777 != mode {
            return Ok(false);
        }
        let mut now = Vec::with_capacity(data.len());
        opened.take(meta.len()).read_to_end(&mut now)?;
        Ok(now == data)
    };
    same().unwrap_or(false)
}

/// Another directory with the files, and `..data` leads to it.
fn replace(dir: &Path, files: &BTreeMap<String, VolumeFile>, group: Option<u32>) -> io::Result<()> {
    let last = fs::read_link(dir.join(DATA)).ok();
    let number = last
        .as_deref()
        .and_then(|link| link.to_str()?.strip_prefix(OWN)?.parse::<u64>().ok());
    let name = format!("{OWN}{}", number.unwrap_or(0) + 1);
    let fresh = dir.join(&name);
    // What a crash has left of an earlier try.
    match fs::remove_dir_all(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    create_dir(&fresh, group)?;
    for (path, file) in files {
        write_one(&fresh, Path::new(path), file, group)?;
    }
    let link = dir.join("..data_tmp");
    link_over(&link, Path::new(&name), &dir.join(DATA))?;
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    for entry in entries {
        let other = entry.file_name();
        let own = other.to_str().is_some_and(|other| other.starts_with(OWN));
        if own && entry.file_type()?.is_dir() && other != *name {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Open to all who get there: the container's user is any, and the pod's directory lets nobody of the host through.
fn create_dir(dir: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(dir)?;
    lchown(dir, None, group)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

fn write_one(root: &Path, path: &Path, file: &VolumeFile, group: Option<u32>) -> io::Result<()> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for parent in above.into_iter().rev().filter(|p| !p.as_os_str().is_empty()) {
        let parent = root.join(parent);
        if !parent.is_dir() {
            create_dir(&parent, group)?;
        }
    }
    let path = root.join(path);
    let mut made = File::create_new(&path)?;
    made.write_all(&file.data)?;
    lchown(&path, None, group)?;
    made.set_permissions(Permissions::from_mode(mode(file, group)))
}

/// A link with this target, in place of whatever is there, at once.
fn link_over(temporary: &Path, target: &Path, at: &Path) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(target, temporary)?;
    fs::rename(temporary, at)
}

/// The names that a container knows: the first part of each path, as a link. Names of before go last.
fn show(dir: &Path, files: &BTreeMap<String, VolumeFile>) -> io::Result<()> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = files.keys().map(first).collect();
    for name in &names {
        let target = Path::new(DATA).join(name);
        let at = dir.join(name);
        if fs::read_link(&at).is_ok_and(|now| now == target) {
            continue;
        }
        link_over(&dir.join("..name_tmp"), &target, &at)?;
    }
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    for entry in entries {
        let name = entry.file_name();
        let known = name
            .to_str()
            .is_some_and(|name| name.starts_with(OWN) || names.contains(name));
        if !known {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> BTreeMap<String, VolumeFile> {
        all.iter()
            .map(|(path, text)| ((*path).to_owned(), VolumeFile::from(*text)))
            .collect()
    }

    #[test]
    fn what_is_held_open_stays_and_what_is_opened_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        write(&volume, &files(&[("a/b/c", "old"), ("d", "x")]), None).unwrap();
        let mut held = File::open(volume.join("a/b/c")).unwrap();
        let inside = fs::canonicalize(volume.join("d")).unwrap();
        write(&volume, &files(&[("a/b/c", "old"), ("d", "x")]), None).unwrap();
        assert_eq!(
            fs::canonicalize(volume.join("d")).unwrap(),
            inside,
            "nothing was to be done"
        );
        write(&volume, &files(&[("a/b/c", "new"), ("e", "y")]), None).unwrap();
        let mut text = String::new();
        held.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
        assert_eq!(fs::read(volume.join("a/b/c")).unwrap(), b"new");
        assert_eq!(fs::read(volume.join("e")).unwrap(), b"y");
        assert!(fs::symlink_metadata(volume.join("d")).is_err());
        assert!(!inside.exists());
        let mut names: Vec<_> = fs::read_dir(&volume)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["..2", "..data", "a", "e"]);
    }

    #[test]
    fn a_mode_is_a_change_and_bytes_are_any() {
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = files(&[("a", "")]);
        wanted.insert(
            "b".to_owned(),
            VolumeFile {
                data: vec![0, 0xff],
                mode: 0o400,
            },
        );
        write(dir.path(), &wanted, None).unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("b")), (0o644, 0o400));
        wanted.get_mut("b").unwrap().mode = 0o444;
        write(dir.path(), &wanted, None).unwrap();
        assert_eq!(mode("b"), 0o444);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), [0, 0xff]);
    }

    /// The first version wrote the files themselves.
    #[test]
    fn a_directory_of_the_first_version_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        fs::write(dir.path().join("gone"), "old").unwrap();
        write(dir.path(), &files(&[("a", "new")]), None).unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"new");
        assert!(!dir.path().join("gone").exists());
    }

    #[test]
    fn no_more_is_read_than_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let file = File::create(&path).unwrap();
        file.set_len(64 << 30).unwrap();
        assert!(!holds(&path, b"x", 0o644));
    }
}
