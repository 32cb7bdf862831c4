//! A node: who it is, what it answers, and its peers.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::codes::{application, avp, result};
use crate::connection::{self, Side};
use crate::{Avp, Avps, Malformed, Message, Peer, RequestError};

/// Between two attempts to connect (Tc, for a lab short).
const RECONNECT: Duration = Duration::from_secs(2);

/// After a connection that could not be taken, for want of file descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Connections of others at once; those beyond are refused.
const CONNECTIONS: usize = 64;

/// Why there is no connection any more.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The socket.
    #[error("the connection to a Diameter peer")]
    Io(#[source] io::Error),
    /// What came is no Diameter.
    #[error("a Diameter peer sent something that is no message")]
    Malformed(#[source] Malformed),
    /// No exchange of capabilities.
    #[error("a peer did not exchange capabilities within 5 s")]
    NoCapabilities,
    /// The other says so.
    #[error("{host} refused the connection (Result-Code {code:?})")]
    Refused {
        /// Who.
        host: String,
        /// Its Result-Code.
        code: Option<u32>,
    },
    /// Another language.
    #[error("{host} and this node have no application in common")]
    NothingInCommon {
        /// Who.
        host: String,
    },
    /// It does not read.
    #[error("{host} takes nothing that is sent to it")]
    Deaf {
        /// Who.
        host: String,
    },
    /// The watchdog.
    #[error("{host} did not answer the watchdog")]
    Silent {
        /// Who.
        host: String,
    },
}

/// An application that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Application {
    /// Application-Id.
    pub id: u32,
    /// Whose.
    pub vendor: u32,
}

/// Who a node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its DiameterIdentity, for example `hss.ims.lab`.
    pub host: String,
    /// Its realm.
    pub realm: String,
    /// Where it is.
    pub address: Ipv4Addr,
    /// What it calls itself.
    pub product: &'static str,
    /// What it speaks.
    pub applications: Vec<Application>,
}

impl Identity {
    /// Origin-Host and Origin-Realm.
    pub fn origin(&self) -> Vec<Avp> {
        vec![
            Avp::text(avp::ORIGIN_HOST, &self.host),
            Avp::text(avp::ORIGIN_REALM, &self.realm),
        ]
    }

    /// The origin, and that it was done.
    pub fn done(&self) -> Vec<Avp> {
        self.coming_to(result::SUCCESS)
    }

    /// The origin with a Result-Code.
    pub fn coming_to(&self, code: u32) -> Vec<Avp> {
        let mut avps = vec![Avp::number(avp::RESULT_CODE, code)];
        avps.extend(self.origin());
        avps
    }

    /// What a CER and a CEA say.
    pub(crate) fn capabilities(&self) -> Vec<Avp> {
        let mut avps = self.origin();
        avps.push(Avp::address(avp::HOST_IP_ADDRESS, self.address));
        avps.push(Avp::number(avp::VENDOR_ID, 0));
        avps.push(Avp::text(avp::PRODUCT_NAME, self.product).optional());
        for application in &self.applications {
            let id = Avp::number(avp::AUTH_APPLICATION_ID, application.id);
            let vendor = Avp::number(avp::VENDOR_ID, application.vendor);
            avps.push(Avp::number(avp::SUPPORTED_VENDOR_ID, application.vendor));
            avps.push(Avp::group(avp::VENDOR_SPECIFIC_APPLICATION_ID, &[vendor, id]));
        }
        avps
    }

    /// Whether whoever says this speaks one of this node's applications, or relays them all.
    pub(crate) fn has_common(&self, theirs: &[Avp]) -> bool {
        let groups = theirs
            .iter()
            .filter(|a| a.code == avp::VENDOR_SPECIFIC_APPLICATION_ID);
        let within = groups.filter_map(|group| group.as_group().ok()?.number(avp::AUTH_APPLICATION_ID));
        let plain = theirs.iter().filter(|a| a.code == avp::AUTH_APPLICATION_ID);
        let plain = plain.filter_map(|a| a.as_number().ok());
        let mine = |id: u32| self.applications.iter().any(|own| own.id == id);
        within.chain(plain).any(|id| id == application::RELAY || mine(id))
    }
}

/// What a node does with requests.
pub trait Service: Send + Sync + 'static {
    /// The answer to a request of a peer, which may have come from further away.
    fn answer(&self, request: Message, from: &Peer) -> impl Future<Output = Message> + Send;
}

/// The peers that are connected. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Arc<Mutex<Vec<Peer>>>);

impl Peers {
    pub(crate) fn add(&self, peer: &Peer) {
        self.lock().push(peer.clone());
    }

    pub(crate) fn remove(&self, peer: &Peer) {
        self.lock().retain(|other| !other.is(peer));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub struct Node<S> {
    identity: Arc<Identity>,
    service: Arc<S>,
    peers: Peers,
}

impl<S> Clone for Node<S> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            service: self.service.clone(),
            peers: self.peers.clone(),
        }
    }
}

impl<S: Service> Node<S> {
    /// A node without connections.
    pub fn new(identity: Identity, service: S) -> Self {
        Self {
            identity: Arc::new(identity),
            service: Arc::new(service),
            peers: Peers::default(),
        }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it does.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Hosts of the peers that are connected.
    pub fn connected(&self) -> Vec<String> {
        self.peers
            .lock()
            .iter()
            .map(|peer| peer.host().to_owned())
            .collect()
    }

    /// Takes connections until `stop`, and returns when farewell was said on all of them.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Cancel-safe: a connection that was not accepted waits in the kernel.
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match (accepted, places.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => {
                    let (node, stop) = (self.clone(), stop.clone());
                    tokio::spawn(async move {
                        node.run(stream, Side::Responder, &stop).await;
                        drop(place);
                    });
                }
                (Ok((_, from)), Err(_)) => {
                    tracing::warn!(%from, "refused: there are {CONNECTIONS} connections")
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "cannot take a Diameter connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        // Each has given back its place when it has ended.
        let _ = places.acquire_many(CONNECTIONS as u32).await;
    }

    /// Is connected to `to` (`host:port`) as far as that is possible, until `stop`.
    pub async fn keep_connected(&self, to: &str, stop: &CancellationToken) {
        // Cancel-safe: what is not yet connected holds nothing.
        while let Some(connected) = stop.run_until_cancelled(TcpStream::connect(to)).await {
            match connected {
                Ok(stream) => self.run(stream, Side::Initiator, stop).await,
                Err(error) => tracing::debug!(to, %error, "cannot connect"),
            }
            stop.run_until_cancelled(tokio::time::sleep(RECONNECT)).await;
        }
    }

    /// The same to each of them; returns when farewell was said to all.
    pub async fn keep_all_connected(&self, all: Vec<String>, stop: &CancellationToken) {
        let mut tasks = JoinSet::new();
        for to in all {
            let (node, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { node.keep_connected(&to, &stop).await });
        }
        tasks.join_all().await;
    }

    /// Sends a request to the peer that its Destination-Host names, else to one that may know the way, and waits for the answer.
    pub async fn request(&self, request: Message) -> Result<Message, RequestError> {
        let to = request.text(avp::DESTINATION_HOST);
        let peer = {
            let peers = self.peers.lock();
            let direct = peers.iter().find(|peer| peer.host() == to);
            direct.or_else(|| peers.first()).cloned()
        };
        peer.ok_or(RequestError::NoPeer)?.request(request).await
    }

    async fn run(&self, stream: TcpStream, side: Side, stop: &CancellationToken) {
        let ended = connection::run(stream, side, &self.identity, &self.service, &self.peers, stop).await;
        if let Err(error) = ended {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "Diameter connection ended"
            );
        }
    }
}
