//! TCP, TLS with client certificates, HTTP/1.1 and HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Doors};
use super::limits::ConnectionLimits;
use crate::pki::Revoked;

/// Requests under way may take so long after a shutdown.
const GRACE: Duration = Duration::from_millis(1500);

/// The address cannot be had.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("listen on {0}: the address is in use; stop the other program or choose another with --listen")]
    InUse(SocketAddr),
    /// Another reason.
    #[error("listen on {address}: choose another address with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A bound socket.
pub struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    /// Binds. The configuration must demand client certificates.
    pub async fn bind(address: SocketAddr, mut tls: ServerConfig) -> Result<Self, ListenError> {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse(address),
                _ => ListenError::Bind { address, source },
            })?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            tcp,
            tls: TlsAcceptor::from(Arc::new(tls)),
        })
    }

    /// The address in fact: the port, if 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until the token is cancelled, then gives requests under way a moment. Whoever is revoked gets no answer but that.
    pub async fn run(
        self,
        router: Router,
        limits: ConnectionLimits,
        revoked: watch::Receiver<Revoked>,
        shutdown: CancellationToken,
    ) {
        let doors = Doors::new(limits, revoked);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // Cancel-safe: accept, a token, and a join set.
            tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (tls, router) = (self.tls.clone(), router.clone());
                        let (doors, shutdown) = (doors.clone(), shutdown.clone());
                        // Here, not in the task: they are too many before any task of theirs runs.
                        let stranger = doors.stranger(&stream, peer.ip());
                        connections.spawn(async move {
                            let served = connection::serve(stream, stranger, tls, router, doors, shutdown);
                            if let Err(error) = served.await {
                                tracing::debug!(%peer, %error, "connection ended");
                            }
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: others may free some.
                        tracing::warn!(%error, "accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = shutdown.cancelled() => break,
            }
        }
        drop(self.tcp);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::debug!("connections were cut off at shutdown");
        }
    }
}
