//! Composition: store, objects, certificates, link, API, controllers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiServer, Limits as ApiLimits, ListenError, Listener, Objects, Planning};
use crate::cleaner::Cleaner;
use crate::cluster::ClusterError;
use crate::core::Limits as CoreLimits;
use crate::link::{LinkEvent, LinkHandle};
use crate::pki::{Pki, PkiError};
use crate::renderer::Renderer;
use crate::secrets::SecretsError;
use crate::shell::ShellError;
use crate::state::{self, State};
use crate::store::{OpenError, Store};

/// Certificates are looked at so often; they are renewed months before their end.
const RENEWAL_PERIOD: Duration = Duration::from_secs(12 * 3600);

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
    /// The cluster that the settings of the data directory name; `None` before it has come up for the first time.
    pub cluster: Option<String>,
    /// How much of the API server one client can have.
    pub limits: ApiLimits,
    /// How much one object can make the core do.
    pub core_limits: CoreLimits,
    /// Who renders templates.
    pub renderer: Renderer,
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
    /// The state is not all there, or not of one cluster.
    #[error("{}: nothing is started, and pods run on", data_dir.display())]
    Cluster {
        /// Where.
        data_dir: PathBuf,
        /// What is wrong, and what to do.
        #[source]
        source: ClusterError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The key of the Secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
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
    /// The cluster's id.
    pub cluster: String,
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
    let State { store, pki, cluster } = state::open(&config)?;
    let listener = Listener::bind(config.listen, pki.server_config()?)?;
    let pki = Arc::new(pki);
    let store: Arc<dyn Store> = Arc::new(store);
    let objects = Objects::new(store, config.service_cidr).with_limits(config.limits.objects);
    let (link, events) = LinkHandle::new(&cluster);
    let parts = Parts {
        config: config.clone(),
        cluster,
        objects: objects.clone(),
        link: link.clone(),
        events,
        shutdown: shutdown.clone(),
    };
    let Controllers {
        planning,
        task: controllers,
    } = start(parts).await?;
    let counter = tokio::spawn(objects.counter().run(shutdown.clone()));
    let cleaner = tokio::spawn(Cleaner::new(objects.clone()).run(shutdown.clone()));
    let connections = config.limits.connections;
    let (data_dir, limits) = (config.data_dir, config.limits);
    let server = ApiServer::new(
        objects,
        link.clone(),
        planning,
        data_dir,
        pki.clone(),
        limits,
        shutdown.clone(),
    );
    tracing::info!(address = %config.listen, kubeconfig = %pki.kubeconfig().display(), "serving");
    let revoked = pki.revoked();
    let renewer = tokio::spawn(renew(pki, shutdown.clone()));
    let closer = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            shutdown.cancelled().await;
            link.close();
        }
    });
    listener
        .run(server.router(), connections, revoked, shutdown)
        .await;
    for task in [controllers, cleaner, counter, closer, renewer] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task of the orchestrator failed");
        }
    }
    Ok(())
}

async fn renew(pki: Arc<Pki>, shutdown: CancellationToken) {
    loop {
        // Cancel-safe: a timer and a token.
        tokio::select! {
            () = tokio::time::sleep(RENEWAL_PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
        let pki = pki.clone();
        match tokio::task::spawn_blocking(move || pki.renew()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew the certificates"
                );
            }
            Err(error) => tracing::error!(%error, "cannot renew the certificates"),
        }
    }
}
