//! TCP, TLS with client certificates, HTTP/1.1 and HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Doors};
use super::limits::ConnectionLimits;
use crate::pki::Revoked;

/// Requests under way may take so long after a shutdown.
const GRACE: Duration = Duration::from_millis(1500);

/// Connections that wait to be accepted: what Linux takes unless it is told otherwise (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A bound socket.
pub struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    /// Binds. The configuration must demand client certificates.
    pub fn bind(address: SocketAddr, mut tls: ServerConfig) -> Result<Self, ListenError> {
        let tcp = listen(address).map_err(|source| match source.kind() {
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
            // All that wait, in one turn: with handshakes by the thousand the next turn is far, and for whom the kernel finds no
            // place meanwhile has lost a second.
            let accept = tokio::task::unconstrained(self.tcp.accept());
            // Cancel-safe: accept, a token, and a join set.
            tokio::select! {
                accepted = accept => match accepted {
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
