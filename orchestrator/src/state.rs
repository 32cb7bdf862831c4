//! Opening a data directory: whose it is, before anything in it is changed.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::cluster::{Evidence, Mark, judge};
use crate::pki::{self, Pki};
use crate::secrets;
use crate::server::{ServerConfig, ServerError};
use crate::store::{Limits, LocalStore, StoreFile};

/// The store's file in the data directory.
pub const STORE: &str = "store.redb";
/// The node agent's directory in it, made at its first start.
const AGENT: &str = "agent";

/// What lasts of an orchestrator.
pub(crate) struct State {
    pub store: LocalStore,
    pub pki: Pki,
    /// The cluster's id.
    pub cluster: String,
}

/// Opens what is there, or makes it for a new cluster. A directory of the first version is given an id.
pub(crate) fn open(config: &ServerConfig) -> Result<State, ServerError> {
    let dir = &config.data_dir;
    let path = dir.join(STORE);
    private(dir, &path).map_err(|source| ServerError::DataDir {
        path: dir.clone(),
        source,
    })?;
    // The lock on the store comes with it: a second orchestrator fails here, before it touches anything.
    let key = secrets::read(dir)?;
    let file = StoreFile::open(&path, key.as_ref().map(secrets::seal))?;
    let evidence = Evidence {
        settings: config.cluster.clone().map_or(Mark::Absent, Mark::Of),
        store: match &file {
            Some(file) => file
                .cluster()
                .map_or(Mark::Unmarked, |id| Mark::Of(id.to_owned())),
            None => Mark::Absent,
        },
        authority: pki::mark(dir)?,
        agent: dir.join(AGENT).exists(),
    };
    let known = judge(&evidence).map_err(|source| ServerError::Cluster {
        data_dir: dir.clone(),
        source,
    })?;
    let cluster = known.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let seal = secrets::seal(&key.map_or_else(|| secrets::create(dir), Ok)?);
    let authority = || pki::ensure(dir, config.listen, &config.names, &cluster);
    // An authority that was made tells no more than itself; a store tells that a cluster was here.
    let (store, pki) = match file {
        Some(file) => {
            if evidence.store == Mark::Unmarked {
                tracing::info!(cluster, "a data directory of the first version is taken over");
            }
            let file = file.with_seal(seal);
            (file.start(&cluster, Limits::default())?, authority()?)
        }
        None => {
            let pki = authority()?;
            tracing::info!(cluster, "a new cluster");
            let file = StoreFile::create(&path, &cluster, Some(seal))?;
            (file.start(&cluster, Limits::default())?, pki)
        }
    };
    Ok(State { store, pki, cluster })
}

/// The store of a data directory, to look at it or to copy it; `None` if there is none.
pub fn open_store(dir: &Path) -> Result<Option<StoreFile>, ServerError> {
    let key = secrets::read(dir)?;
    Ok(StoreFile::open(
        &dir.join(STORE),
        key.as_ref().map(secrets::seal),
    )?)
}

/// Whoever made the directory: only its owner reads the store, Secrets are in it.
fn private(dir: &Path, store: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if std::fs::metadata(store).is_ok_and(|found| !found.is_file()) {
        // Whoever opens the store says what is wrong with it.
        return Ok(());
    }
    let mut options = File::options();
    let file = options.create(true).append(true).mode(0o600).open(store)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    // Root may have it back from whoever has got it; anybody else has it, or could not open it.
    let own = std::fs::metadata("/proc/self")?.uid();
    if file.metadata()?.uid() != own {
        tracing::warn!(path = %store.display(), "another user owned the store; it is its owner's again");
        std::os::unix::fs::fchown(&file, Some(own), None)?;
    }
    Ok(())
}
