//! Who may touch what: one agent a directory, and one directory an instance, since links, cgroups and tables go by its name.
//! A data directory that was copied, or restored beside the first, names the same instance.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Display, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Failure;
use crate::host::cgroup::Cgroups;
use crate::runtime::RuntimeDir;

/// Where instances say whose they are. It is gone after a reboot, as all pods are.
const INSTANCES: &str = "/run/gantry";
/// How long another agent may take to be gone. One that was killed holds its locks until its last thread has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// One agent per directory: two would undo each other's work.
pub(super) fn directory(agent_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = agent_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    lock(file).with_context(|| format!("an agent runs on {}; stop it first", agent_dir.display()))
}

/// An instance that is this directory's. The file stays when the agent ends, for the pods do.
pub(super) struct Instance {
    file: Flock<File>,
    path: PathBuf,
}

impl Instance {
    /// Refused, before anything is touched, while an agent runs it from another directory, or pods run that were started from one.
    pub fn claim(name: &str, agent_dir: &Path, cgroups: &Cgroups) -> anyhow::Result<Self> {
        let pods_run = |other: &Path| pods_run(cgroups, &[other, agent_dir]);
        Self::claim_in(Path::new(INSTANCES), name, agent_dir, pods_run)
    }

    fn claim_in(
        instances: &Path,
        name: &str,
        agent_dir: &Path,
        pods_run: impl Fn(&Path) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Self> {
        let path = instances.join(format!("{name}.lock"));
        let file = loop {
            let file = open(&path).map_err(Failure::io("open", &path))?;
            let file = match lock(file) {
                Ok(file) => file,
                Err(error) => {
                    let whose = fs::read(&path).unwrap_or_default();
                    let whose = data_dir(Path::new(OsStr::from_bytes(&whose)));
                    return Err(error).with_context(|| {
                        format!("instance {name} is run from {whose}: two directories cannot run it, `gantry down --data-dir {whose}` first")
                    });
                }
            };
            // A purge may have removed it since it was opened: then the next one has another.
            if is_at(&file, &path) {
                break file;
            }
        };
        let mut whose = Vec::new();
        (&*file)
            .read_to_end(&mut whose)
            .map_err(Failure::io("read", &path))?;
        let other = Path::new(OsStr::from_bytes(&whose));
        let own = agent_dir.as_os_str().as_bytes();
        if whose != own {
            if !whose.is_empty() && pods_run(other)? {
                let other = data_dir(other);
                bail!(
                    "pods of instance {name} were started from {other} and still run: `gantry down --data-dir {other}` ends them. \
                     If that directory was moved to {}, move it back first: its pods' mounts go by its name",
                    data_dir(agent_dir)
                );
            }
            let written = file.set_len(0).and_then(|()| file.write_all_at(own, 0));
            written.map_err(Failure::io("write", &path))?;
        }
        Ok(Self { file, path })
    }

    /// Nothing of it is left on the node.
    pub fn forget(self) -> anyhow::Result<()> {
        // While it is locked: whoever waits for it sees that it is gone.
        fs::remove_file(&self.path).map_err(Failure::io("remove", &self.path))?;
        drop(self.file);
        Ok(())
    }
}

fn lock(mut file: File) -> anyhow::Result<Flock<File>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EAGAIN)) if Instant::now() < deadline => {
                file = again;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err((_, error)) => return Err(error.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(instances) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(instances)?;
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// What people know of `DATA_DIR/agent`.
fn data_dir(agent_dir: &Path) -> Display<'_> {
    agent_dir.parent().unwrap_or(agent_dir).display()
}

/// Containers run, or shims that one of the directories tells of: one that was moved or copied brings their records along.
fn pods_run(cgroups: &Cgroups, agent_dirs: &[&Path]) -> anyhow::Result<bool> {
    for uid in cgroups.pods()? {
        if !cgroups.pids_of_pod(&uid)?.is_empty() {
            return Ok(true);
        }
    }
    for agent_dir in agent_dirs {
        let runtime = RuntimeDir::new(agent_dir);
        if runtime.pods()?.iter().any(|uid| runtime.pod(uid).has_shim()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_one_directorys_until_its_pods_have_ended() {
        let run = tempfile::tempdir().unwrap();
        let claim = |dir: &str, pods: bool| {
            Instance::claim_in(&run.path().join("gantry"), "a1", Path::new(dir), |_| Ok(pods))
        };
        let refused = |dir: &str, pods| format!("{:#}", claim(dir, pods).err().unwrap());
        let held = claim("/one/agent", true).unwrap();
        let told = refused("/two/agent", false);
        assert!(
            told.contains("is run from /one: two directories cannot run it, `gantry down --data-dir /one`"),
            "{told}"
        );
        drop(held);
        let told = refused("/two/agent", true);
        assert!(
            told.contains("started from /one") && told.contains("moved to /two"),
            "{told}"
        );
        // They stay its own, until there are none.
        drop(claim("/one/agent", true).unwrap());
        drop(claim("/two/agent", false).unwrap());
        assert!(refused("/one/agent", true).contains("started from /two"));
        claim("/two/agent", true).unwrap().forget().unwrap();
        drop(claim("/one/agent", true).unwrap());
    }
}
