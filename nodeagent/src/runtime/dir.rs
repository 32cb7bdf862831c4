//! Where pods live on disk.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_images::remove_tree;

use super::{ContainerState, RuntimeError, mounts};

/// Name of the mark of [`PodDir::reduce_to_records`].
const ENDED: &str = "ended";

/// The agent's directory, as far as pods are concerned.
#[derive(Clone, Debug)]
pub struct RuntimeDir {
    pods: PathBuf,
}

impl RuntimeDir {
    /// `agent_dir` is an absolute path, for example `/var/lib/gantry/agent`.
    pub fn new(agent_dir: &Path) -> Self {
        Self {
            pods: agent_dir.join("pods"),
        }
    }

    /// The directory of a pod, whether it exists or not.
    pub fn pod(&self, uid: &str) -> PodDir {
        PodDir::new(self.pods.join(uid))
    }

    /// Makes a pod's directory (0700); it may exist.
    pub fn create_pod(&self, uid: &str) -> Result<PodDir, RuntimeError> {
        let pod = self.pod(uid);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&pod.path)
            .map_err(|e| RuntimeError::io("create directory", &pod.path, e))?;
        Ok(pod)
    }

    /// Uids of the pods that have a directory, sorted.
    pub fn pods(&self) -> Result<Vec<String>, RuntimeError> {
        names(&self.pods)
    }
}

/// One pod's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDir {
    path: PathBuf,
}

impl PodDir {
    /// Of an absolute path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is on record about each container: its last attempt. A container that was running when its shim was killed
    /// is still recorded as running.
    pub fn states(&self) -> Result<Vec<ContainerState>, RuntimeError> {
        let mut states = Vec::new();
        for name in names(&self.containers())? {
            let path = self.state_file(&name);
            match fs::read(&path) {
                Ok(bytes) => states.push(
                    serde_json::from_slice(&bytes).map_err(|e| RuntimeError::io("read", &path, e.into()))?,
                ),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(RuntimeError::io("read", &path, e)),
            }
        }
        Ok(states)
    }

    /// Removes the directory with everything in it. Refused while anything is mounted below: that would be emptied too, and it
    /// may be a directory of the host. It may be gone already.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        let failed = |e| RuntimeError::io("remove directory", &self.path, e);
        self.nothing_mounted().map_err(failed)?;
        match remove_tree(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(()),
        }
    }

    /// Removes everything but the logs (unless they go too) and the record of each container's end, and marks the pod as one that holds no more.
    /// Refused, as [`Self::remove`] is, while anything is mounted below.
    pub fn reduce_to_records(&self, keep_logs: bool) -> Result<(), RuntimeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e| RuntimeError::io("remove", &path, e)
        };
        self.nothing_mounted().map_err(failed(&self.path))?;
        let logs = if keep_logs { "logs" } else { ENDED };
        remove_others(&self.path, &[logs, "c", ENDED]).map_err(failed(&self.path))?;
        for name in names(&self.containers())? {
            let container = self.container(&name);
            remove_others(&container, &["state.json"]).map_err(failed(&container))?;
        }
        let mark = self.path.join(ENDED);
        fs::write(&mark, "").map_err(|e| RuntimeError::io("write", &mark, e))
    }

    /// Nothing is left of the pod but its logs and records.
    pub fn is_reduced(&self) -> bool {
        self.path.join(ENDED).exists()
    }

    fn nothing_mounted(&self) -> io::Result<()> {
        match mounts::below(&self.path)?.first() {
            Some(point) => Err(io::Error::other(format!("{} is still mounted", point.display()))),
            None => Ok(()),
        }
    }

    pub(crate) fn socket_name() -> &'static str {
        "shim.sock"
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.path.join("shim.pid")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.path.join("shim.log")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.path.join("c")
    }

    pub(crate) fn container(&self, name: &str) -> PathBuf {
        self.containers().join(name)
    }

    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        self.container(name).join("state.json")
    }

    /// libcontainer's own state, one directory a container id.
    pub(crate) fn libcontainer_root(&self) -> PathBuf {
        self.path.join("rc")
    }
}

/// Removes what is in a directory under other names.
fn remove_others(dir: &Path, keep: &[&str]) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if keep.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        remove_tree(&entry.path())?;
    }
    Ok(())
}

pub(super) fn names(dir: &Path) -> Result<Vec<String>, RuntimeError> {
    let fail = |e| RuntimeError::io("list", dir, e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
