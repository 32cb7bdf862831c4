//! `gantry down`: stops what runs from a data directory, and with `--purge` removes what Gantry made in it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::args::{DownArgs, Global};
use crate::data_dir::{DataDir, Settings};
use crate::output::{self, Progress};
use crate::preflight;
use crate::up::{STOP_PATIENCE, Tools, daemons};

/// What Gantry makes in its directory. The settings, which say that the directory is Gantry's, come last: a purge that was
/// cut off can be repeated.
const OURS: [&str; 21] = [
    "pki",
    "images",
    "agent",
    "kubeconfig",
    "store.redb",
    "audit.log",
    "audit.log.1",
    "orchestrator.log",
    "orchestrator.log.1",
    "orchestrator.log.new",
    "nodeagent.log",
    "nodeagent.log.1",
    "nodeagent.log.new",
    "orchestrator.pid",
    "nodeagent.pid",
    "lock",
    "snapshot.redb",
    "restore.new",
    "secrets.key",
    "settings.copy.json",
    "settings.json",
];

/// `gantry down`.
pub fn down(args: &DownArgs, global: &Global) -> Result<()> {
    let data_dir = global.data_dir();
    let Some(settings) = data_dir.load_settings()? else {
        return never_up(args, &data_dir);
    };
    preflight::require_root("gantry down")?;
    let tools = Tools::find()?;
    let _lock = data_dir.lock()?;
    let mut progress = Progress::new("stopping the control plane and the agent");
    let [orchestrator, agent] = daemons(&data_dir);
    orchestrator.stop(STOP_PATIENCE)?;
    agent.stop(STOP_PATIENCE)?;
    if args.keep_pods {
        drop(progress);
        return output::write_out(
            "stopped; pods and their packets go on, and `gantry up` takes them over again\n",
        );
    }
    progress.set("stopping pods, removing networks");
    purge_node(&data_dir, &settings, &tools)?;
    drop(progress);
    if !args.purge {
        return output::write_out("stopped; `gantry up` starts again what was deployed\n");
    }
    purge(&data_dir, &OURS)
}

/// A directory without settings: there may be an image store in it, and all else is somebody else's.
fn never_up(args: &DownArgs, data_dir: &DataDir) -> Result<()> {
    let path = data_dir.path();
    if args.purge && data_dir.images().join("oci-layout").is_file() {
        return purge(data_dir, &["images"]);
    }
    if args.purge && path.is_dir() {
        bail!(
            "{} is not a data directory of Gantry: it has no settings.json; nothing was removed",
            path.display()
        );
    }
    output::write_out(&format!("nothing runs from {}\n", path.display()))
}

/// Removes these entries, and the directory if nothing else is in it.
fn purge(data_dir: &DataDir, ours: &[&str]) -> Result<()> {
    for name in ours {
        remove(&data_dir.path().join(name))?;
    }
    for path in set_aside(data_dir.path()) {
        remove(&path)?;
    }
    let path = data_dir.path().display();
    match fs::remove_dir(data_dir.path()) {
        Ok(()) => output::write_out(&format!("stopped; {path} removed\n")),
        Err(error) => output::write_out(&format!("stopped; {path} stays: {error}\n")),
    }
}

/// What was set aside as damaged, or by a restore.
fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let ours = |name: &str| {
        OURS.iter().any(|ours| {
            let rest = name.strip_prefix(ours);
            rest.is_some_and(|rest| rest.starts_with(".corrupt-") || rest.starts_with(".before-restore-"))
        })
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(ours))
        .map(|entry| entry.path())
        .collect()
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn purge_node(data_dir: &DataDir, settings: &Settings, tools: &Tools) -> Result<()> {
    let output = Command::new(&tools.agent)
        .args(["purge", "--instance", &settings.instance, "--data-dir"])
        .arg(data_dir.path())
        .arg("--cni-bin")
        .arg(&tools.cni)
        .output()
        .context("cannot run gantry-nodeagent purge")?;
    if !output.status.success() {
        bail!(
            "gantry-nodeagent purge failed:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_gantrys_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        for name in ["images", "agent", "pki"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let data_dir = DataDir::new(root.path());
        let args = DownArgs {
            purge: true,
            keep_pods: false,
        };
        let error = never_up(&args, &data_dir).unwrap_err().to_string();
        assert!(error.contains("settings.json"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);

        fs::write(data_dir.images().join("oci-layout"), "{}").unwrap();
        never_up(&args, &data_dir).unwrap();
        assert!(!data_dir.images().exists() && root.path().join("agent").exists());
    }

    #[test]
    fn a_purge_leaves_what_others_put_there() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(&root.path().join("data"));
        data_dir.create().unwrap();
        for name in ["settings.json", "lock", "settings.json.corrupt-7", "notes.txt"] {
            fs::write(data_dir.path().join(name), "").unwrap();
        }
        purge(&data_dir, &OURS).unwrap();
        let left: Vec<_> = fs::read_dir(data_dir.path()).unwrap().collect();
        assert_eq!(left[0].as_ref().unwrap().file_name(), "notes.txt");
        assert_eq!(left.len(), 1);
    }
}
