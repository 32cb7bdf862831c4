//! Where claims live on disk: `claims/kept/<id>`, made when a pod first wants it, and there until somebody says that it goes. What
//! is being removed is moved to `claims/gone` first, at once: whatever a crash leaves there is removed by the next removal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_images::remove_tree;
use gantry_nodeagent_api::is_claim_id;

use super::RuntimeError;
use super::volumes::empty_dir;

/// The claims of this node.
#[derive(Clone, Debug)]
pub struct ClaimsDir {
    dir: PathBuf,
}

impl ClaimsDir {
    /// In the agent's directory.
    pub fn new(agent_dir: &Path) -> Self {
        Self {
            dir: agent_dir.join("claims"),
        }
    }

    /// The directory of a claim, whether it exists or not.
    pub fn path(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        match is_claim_id(id) {
            true => Ok(self.part("kept").join(id)),
            false => Err(RuntimeError::Refused(format!("`{id}` is no claim"))),
        }
    }

    /// Makes it, as an emptyDir is made; it may exist. It is there after a loss of power too.
    pub fn make(&self, id: &str, fs_group: Option<u32>) -> Result<PathBuf, RuntimeError> {
        let path = self.path(id)?;
        if path.exists() {
            return Ok(path);
        }
        for part in ["new", "kept"] {
            self.make_part(part)?;
        }
        empty_dir(&path, &self.part("new").join(id), fs_group, |_| Ok(()))?;
        let kept = self.part("kept");
        for dir in [&kept, &self.dir] {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|e| RuntimeError::io("write down what is in", dir, e))?;
        }
        Ok(path)
    }

    /// Removes it with all that is in it; it may be gone. No pod has it.
    pub fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let path = self.path(id)?;
        let gone = self.make_part("gone")?;
        let failed = |e| RuntimeError::io("remove", &path, e);
        let mut target = gone.join(id);
        // What an earlier removal has left under this name.
        for number in 0.. {
            if !target.exists() {
                break;
            }
            target = gone.join(format!("{id}+{number}"));
        }
        match fs::rename(&path, &target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        for entry in fs::read_dir(&gone).map_err(|e| RuntimeError::io("list", &gone, e))? {
            let left = entry.map_err(failed)?.path();
            match remove_tree(&left) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::io("remove", &left, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn part(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Nobody else on the host looks into it, whatever modes pods give to their files.
    fn make_part(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let path = self.part(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|e| RuntimeError::io("make directory", &path, e))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_stays_until_it_is_removed_and_comes_back_empty() {
        let tmp = tempfile::tempdir().unwrap();
        let claims = ClaimsDir::new(tmp.path());
        let path = claims.make("a", None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o777);
        assert_eq!(mode(&tmp.path().join("claims/kept")), 0o700);
        let outside = tmp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        symlink(&outside, path.join("link")).unwrap();
        fs::write(path.join("file"), "text").unwrap();
        assert_eq!(claims.make("a", None).unwrap(), path);
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "text");
        claims.make("b", None).unwrap();
        // A crash has left something of an earlier one.
        fs::create_dir_all(tmp.path().join("claims/gone/a/deep")).unwrap();
        claims.remove("a").unwrap();
        claims.remove("a").unwrap();
        assert!(!path.exists() && claims.path("b").unwrap().exists());
        assert_eq!(fs::read_dir(tmp.path().join("claims/gone")).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "stays");
        assert_eq!(fs::read_dir(claims.make("a", None).unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn its_group_is_the_pods_and_its_name_is_no_path() {
        let tmp = tempfile::tempdir().unwrap();
        let claims = ClaimsDir::new(tmp.path());
        if nix::unistd::geteuid().is_root() {
            let made = fs::metadata(claims.make("a", Some(1234)).unwrap()).unwrap();
            assert_eq!((made.gid(), made.mode() & 0o7777), (1234, 0o2777));
        }
        for bad in ["..", ".", "", "../x", "a/b", "/etc"] {
            assert!(claims.make(bad, None).is_err(), "{bad}");
            assert!(claims.remove(bad).is_err(), "{bad}");
        }
    }
}
