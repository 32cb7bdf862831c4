//! `gantry backup` and `gantry restore`: all that a Gantry cannot make anew, in one file.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gantry_orchestrator::cluster::Mark;
use gantry_orchestrator::pki::{self, Since};
use gantry_orchestrator::secrets::KEY_FILE;
use gantry_orchestrator::state::{STORE, open_store};
use serde::{Deserialize, Serialize};

use crate::args::{BackupArgs, Global, RestoreArgs};
use crate::client::Client;
use crate::data_dir::{self, DataDir};
use crate::output;
use crate::preflight;
use crate::up::daemons;

/// First in the file: what follows.
const MANIFEST: &str = "backup.json";
/// What else is in it. Images and the agent's directory are not: images are built or imported again, and a node is found by
/// looking at it.
const PARTS: [&str; 5] = [STORE, "settings.json", "pki", "kubeconfig", KEY_FILE];
const FORMAT: u32 = 1;
const LEVEL: i32 = 3;
/// Where a backup is unpacked and checked before anything is replaced.
const STAGE: &str = "restore.new";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    format: u32,
    cluster: String,
    version: String,
    /// Seconds since the Unix epoch.
    created_at: u64,
}

/// `gantry backup`: while the control plane runs it makes the snapshot, else this command does.
pub async fn backup(args: &BackupArgs, global: &Global) -> Result<()> {
    preflight::require_root("gantry backup")?;
    let data_dir = global.data_dir();
    ensure!(
        data_dir.load_settings()?.is_some(),
        "{} has no settings.json: nothing was ever started from it",
        data_dir.path().display()
    );
    let _lock = data_dir.lock()?;
    let snapshot = snapshot(&data_dir, global).await?;
    let written = write(&data_dir, &snapshot, &args.file);
    // It holds the Secrets; the archive has them now, or nobody.
    fs::remove_file(&snapshot).with_context(|| format!("cannot remove {}", snapshot.display()))?;
    let manifest = written?;
    output::write_out(&format!(
        "backup of cluster {} in {}; keep it as safe as a key, it holds the authority's and all Secrets\n",
        manifest.cluster,
        args.file.display()
    ))
}

async fn snapshot(data_dir: &DataDir, global: &Global) -> Result<PathBuf> {
    let [orchestrator, _] = daemons(data_dir);
    if orchestrator.running().is_some() {
        let client = Client::of_data_dir(data_dir, &global.namespace).await?;
        let answer: serde_json::Value = client.post("/gantry/v1/snapshot", &serde_json::json!({})).await?;
        let file = answer["file"].as_str().context("the answer names no file")?;
        return Ok(data_dir.path().join(file));
    }
    let to = data_dir.path().join("snapshot.redb");
    let store = open_store(data_dir.path())?.context("there is no store to back up")?;
    store.snapshot(&to)?;
    Ok(to)
}

/// Writes the archive beside its place and moves it there as a whole.
fn write(data_dir: &DataDir, snapshot: &Path, to: &Path) -> Result<Manifest> {
    let saved = data_dir.load_settings()?;
    let cluster = saved.and_then(|settings| settings.cluster);
    let cluster = cluster.context("the settings name no cluster yet; `gantry up` once")?;
    let manifest = Manifest {
        format: FORMAT,
        cluster,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: data_dir::now_s(),
    };
    if fs::symlink_metadata(to).is_ok_and(|found| !found.is_file()) {
        bail!("{} is there and is no plain file: name another one", to.display());
    }
    let dir = to.parent().filter(|dir| *dir != Path::new(""));
    let pack = || -> io::Result<()> {
        // Its owner's alone, and removed unless all goes well.
        let new = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
        let encoder = zstd::Encoder::new(BufWriter::new(new), LEVEL)?;
        let mut tar = tar::Builder::new(encoder);
        tar.sparse(false);
        let text = serde_json::to_vec_pretty(&manifest)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, MANIFEST, &text[..])?;
        tar.append_path_with_name(snapshot, STORE)?;
        for part in PARTS.iter().skip(1) {
            let path = data_dir.path().join(part);
            if path.is_dir() {
                tar.append_dir(part, &path)?;
                // What damage has put there besides files does not belong in a backup.
                for entry in fs::read_dir(&path)? {
                    let entry = entry?;
                    if entry.file_type()?.is_file() {
                        tar.append_path_with_name(entry.path(), Path::new(part).join(entry.file_name()))?;
                    }
                }
            } else if path.is_file() {
                tar.append_path_with_name(path, part)?;
            }
        }
        let new = tar.into_inner()?.finish()?.into_inner()?;
        new.as_file().sync_all()?;
        new.persist(to)?;
        Ok(())
    };
    pack().with_context(|| format!("cannot write {}", to.display()))?;
    Ok(manifest)
}

/// `gantry restore`: puts all of a backup in place, or nothing.
pub fn restore(args: &RestoreArgs, global: &Global) -> Result<()> {
    preflight::require_root("gantry restore")?;
    let data_dir = global.data_dir();
    data_dir.create()?;
    let _lock = data_dir.lock()?;
    let [orchestrator, _] = daemons(&data_dir);
    if let Some(pid) = orchestrator.running() {
        bail!(
            "the control plane runs from {} (pid {pid}); stop it first: `gantry down --keep-pods`",
            data_dir.path().display()
        );
    }
    let stage = data_dir.path().join(STAGE);
    let checked = unpack(&args.file, &stage).and_then(|manifest| {
        check(&manifest, &stage, &data_dir)?;
        Ok(manifest)
    });
    let manifest = match checked {
        Ok(manifest) => manifest,
        Err(error) => {
            remove_stage(&data_dir);
            return Err(error.context(format!("nothing was restored from {}", args.file.display())));
        }
    };
    let since = since_the_backup(&data_dir, &stage);
    let aside = replace(&data_dir, &stage)?;
    let kept = match aside {
        Some(suffix) => format!("{since}what was there is beside it, as *{suffix}\n"),
        None => String::new(),
    };
    output::write_out(&format!(
        "cluster {} is restored; `gantry up` starts it, and takes over the pods that run\n{kept}",
        manifest.cluster
    ))
}

/// What a restore that was killed has left, keys among it. Whoever calls holds the lock of the directory.
pub fn remove_stage(data_dir: &DataDir) {
    let _ = fs::remove_dir_all(data_dir.path().join(STAGE));
}

/// A certificate that was revoked after the backup was made stays revoked, one that was issued can be. What is damaged is no
/// reason not to restore.
fn since_the_backup(data_dir: &DataDir, stage: &Path) -> String {
    match pki::carry_over(data_dir.path(), stage) {
        Ok(Since {
            revoked: 0,
            issued: 0,
        }) => String::new(),
        Ok(Since { revoked, issued }) => format!(
            "kept of what was done since the backup: {revoked} revoked and {issued} issued certificates; see `gantry certs list`\n"
        ),
        Err(error) => format!(
            "certificates that were revoked since the backup may be trusted again: {:#}; see `gantry certs list`\n",
            anyhow::Error::from(error)
        ),
    }
}

/// Unpacks what belongs in a backup, and nothing else.
fn unpack(from: &Path, stage: &Path) -> Result<Manifest> {
    if stage.exists() {
        fs::remove_dir_all(stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    }
    ensure!(
        !fs::metadata(from).is_ok_and(|found| !found.is_file()),
        "{} is no plain file",
        from.display()
    );
    fs::DirBuilder::new().mode(0o700).create(stage)?;
    let file = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(file)?);
    for entry in archive.entries().context("it is no backup")? {
        let mut entry = entry.context("it is damaged, or no backup")?;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        ensure!(
            is_part(&path) && (kind.is_file() || kind.is_dir()),
            "{} does not belong in a backup",
            path.display()
        );
        ensure!(
            entry.unpack_in(stage).context("it is damaged")?,
            "{} does not belong in a backup",
            path.display()
        );
    }
    let text = fs::read(stage.join(MANIFEST)).context("it is no backup: it has no backup.json")?;
    let manifest: Manifest = serde_json::from_slice(&text).context("its backup.json is damaged")?;
    ensure!(
        manifest.format == FORMAT,
        "its format is {}, and this version of Gantry reads {FORMAT}: restore with version {}",
        manifest.format,
        manifest.version
    );
    Ok(manifest)
}

/// A part of a backup, or a file right below one.
fn is_part(path: &Path) -> bool {
    let mut components = path.components();
    let Some(Component::Normal(first)) = components.next() else {
        return false;
    };
    let rest: Vec<_> = components.collect();
    (first == MANIFEST || PARTS.iter().any(|part| first == *part))
        && matches!(rest[..], [] | [Component::Normal(_)])
}

/// All of it is of one cluster, and of that whose directory this is.
fn check(manifest: &Manifest, stage: &Path, data_dir: &DataDir) -> Result<()> {
    let cluster = &manifest.cluster;
    let store = open_store(stage)?.context("its store is missing")?;
    ensure!(
        store.cluster() == Some(cluster) && pki::mark(stage)? == Mark::Of(cluster.clone()),
        "its parts are not of one cluster"
    );
    let saved = DataDir::new(stage).load_settings().context("its settings")?;
    ensure!(saved.is_some(), "its settings.json is missing");
    let own = marks(data_dir);
    if let Some(other) = own.first()
        && !own.contains(cluster)
    {
        bail!(
            "it is of cluster {cluster}, and {} belongs to cluster {other}: take another --data-dir, or `gantry down --purge` first",
            data_dir.path().display()
        );
    }
    Ok(())
}

/// The clusters that the parts of a directory name. What is damaged or another's is a reason to restore, and none against it.
fn marks(data_dir: &DataDir) -> Vec<String> {
    let store = open_store(data_dir.path()).ok().flatten();
    let store = store.and_then(|store| store.cluster().map(str::to_owned));
    let authority = match pki::mark(data_dir.path()) {
        Ok(Mark::Of(cluster)) => Some(cluster),
        _ => None,
    };
    let settings = data_dir.load_settings().ok().flatten();
    let settings = settings.and_then(|settings| settings.cluster);
    [settings, store, authority].into_iter().flatten().collect()
}

/// Moves what is there aside and the checked parts in. Cut off half-way, it is of one cluster all the same; repeat it.
fn replace(data_dir: &DataDir, stage: &Path) -> Result<Option<String>> {
    let suffix = unused_suffix(data_dir.path());
    let mut any = false;
    for part in parts() {
        let (new, place) = (stage.join(part), data_dir.path().join(part));
        let mut moved = || -> io::Result<()> {
            if place.exists() {
                fs::rename(&place, data_dir.path().join(format!("{part}{suffix}")))?;
                any = true;
            }
            if new.exists() {
                fs::rename(&new, &place)
            } else {
                Ok(())
            }
        };
        moved().with_context(|| format!("cannot put {} in place", place.display()))?;
    }
    File::open(data_dir.path())?.sync_all()?;
    fs::remove_dir_all(stage)?;
    Ok(any.then_some(suffix))
}

fn parts() -> impl Iterator<Item = &'static str> {
    PARTS.into_iter().chain([data_dir::SETTINGS_COPY])
}

/// For what is moved aside: the time, and a number where that was a restore's before, so that none takes another's place.
fn unused_suffix(dir: &Path) -> String {
    let now_s = data_dir::now_s();
    let suffix = |number: u32| match number {
        0 => format!(".before-restore-{now_s}"),
        _ => format!(".before-restore-{now_s}-{number}"),
    };
    let is_free = |suffix: &String| !parts().any(|part| dir.join(format!("{part}{suffix}")).exists());
    (0..)
        .map(suffix)
        .find(is_free)
        .expect("a directory has not as many files as there are numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_restore_moved_aside_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let first = unused_suffix(dir.path());
        fs::create_dir(dir.path().join(format!("pki{first}"))).unwrap();
        assert_ne!(unused_suffix(dir.path()), first);
    }

    #[test]
    fn only_what_belongs_in_a_backup_is_unpacked() {
        for good in [MANIFEST, "store.redb", "pki", "pki/ca.key"] {
            assert!(is_part(Path::new(good)), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "pki/../../x",
            "pki/a/b",
            "agent/ledger.json",
            "./pki/../x",
        ] {
            assert!(!is_part(Path::new(bad)), "{bad}");
        }
    }
}
