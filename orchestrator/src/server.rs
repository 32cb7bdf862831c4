//! Composition: store, objects, certificates, link, API, controllers.

use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiServer, ListenError, Listener, Objects, Planning};
use crate::cleaner::Cleaner;
use crate::link::{LinkEvent, LinkHandle};
use crate::pki::{self, PkiError};
use crate::shell::ShellError;
use crate::store::{Limits, LocalStore, OpenError, Store};

/// The store's file in the data directory.
const STORE: &str = "store.redb";

/// What the orchestrator is told.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Holds `store.redb`, `pki/`, `kubeconfig`.
    pub data_dir: PathBuf,
    /// API and agents' address.
    pub listen: SocketAddr,
    /// Further names of the server in its certificate.
    pub names: Vec<String>,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// Addresses of pods, over all nodes.
    pub pod_cidr: Ipv4Net,
    /// DNS domain.
    pub cluster_domain: String,
}

/// The orchestrator cannot start, or not go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The data directory.
    #[error("make the data directory {}: choose another with --data-dir, or run as a user who may write there", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The controllers.
    #[error(transparent)]
    Controllers(#[from] ShellError),
}

/// What the controllers are given.
pub struct Parts {
    /// The configuration.
    pub config: ServerConfig,
    /// Objects by the rules of the table.
    pub objects: Objects,
    /// The agents.
    pub link: LinkHandle,
    /// What agents say.
    pub events: mpsc::Receiver<LinkEvent>,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// Running controllers.
pub struct Controllers {
    /// Answers what-ifs.
    pub planning: Arc<dyn Planning>,
    /// Ends with the shutdown token.
    pub task: JoinHandle<()>,
}

/// Serves until the token is cancelled. `start` starts the controllers and gives the planner that the API asks.
pub async fn serve<F>(
    config: ServerConfig,
    shutdown: CancellationToken,
    start: impl FnOnce(Parts) -> F,
) -> Result<(), ServerError>
where
    F: Future<Output = Result<Controllers, ServerError>>,
{
    prepare(&config.data_dir)?;
    let pki = pki::ensure(&config.data_dir, config.listen, &config.names)?;
    // The port first: a second orchestrator must fail before it touches anything that lasts.
    let listener = Listener::bind(config.listen, pki.server_config()?).await?;
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&config.data_dir.join(STORE), Limits::default())?);
    let objects = Objects::new(store, config.service_cidr);
    let (link, events) = LinkHandle::new();
    let parts = Parts {
        config: config.clone(),
        objects: objects.clone(),
        link: link.clone(),
        events,
        shutdown: shutdown.clone(),
    };
    let Controllers {
        planning,
        task: controllers,
    } = start(parts).await?;
    let cleaner = tokio::spawn(Cleaner::new(objects.clone()).run(shutdown.clone()));
    let server = ApiServer {
        objects,
        link: link.clone(),
        planning,
        shutdown: shutdown.clone(),
    };
    tracing::info!(address = %config.listen, kubeconfig = %pki.kubeconfig().display(), "serving");
    let closer = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            shutdown.cancelled().await;
            link.close();
        }
    });
    listener.run(server.router(), shutdown).await;
    for task in [controllers, cleaner, closer] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task of the orchestrator failed");
        }
    }
    Ok(())
}

fn prepare(data_dir: &Path) -> Result<(), ServerError> {
    // Whoever made the directory: only the owner reads the store, Secrets are in it.
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .and_then(|()| {
            let store = data_dir.join(STORE);
            let mut options = std::fs::File::options();
            let file = options.create(true).append(true).mode(0o600).open(store)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))
        });
    made.map_err(|source| ServerError::DataDir {
        path: data_dir.to_owned(),
        source,
    })
}
