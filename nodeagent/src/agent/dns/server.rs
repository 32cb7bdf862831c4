//! Sockets, forwarding, limits.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Table;
use super::table::{Verdict, failure};

/// Queries under way at once; more are dropped, and asked again by the client.
const AT_ONCE: usize = 256;
/// TCP connections at once, idle ones too; they must never take UDP's place.
const TCP_AT_ONCE: usize = 64;
/// Largest answer over UDP to one who does not say otherwise (RFC 1035, 4.2.1).
const UDP_BYTES: usize = 512;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_IDLE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

type Tables = watch::Receiver<Option<Arc<Table>>>;

/// The server; follows the gateway's address.
pub(in crate::agent) struct Server {
    pub(in crate::agent) tables: Tables,
    pub(in crate::agent) port: u16,
    pub(in crate::agent) resolv_conf: PathBuf,
}

#[derive(Clone)]
struct Shared {
    tables: Tables,
    permits: Arc<Semaphore>,
    tcp_permits: Arc<Semaphore>,
    upstream: Arc<Vec<SocketAddr>>,
}

impl Server {
    /// Serves as soon as there is a table, until cancelled.
    pub(in crate::agent) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let gateway = match self.tables.wait_for(Option::is_some).await {
                Ok(table) => table
                    .as_ref()
                    .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |t| t.gateway),
                Err(_) => return,
            };
            // Cancel-safe: sockets are opened anew.
            let ended = tokio::select! {
                ended = self.serve(gateway) => ended,
                () = cancel.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::error!(address = %gateway, port = self.port, %error, "the DNS server failed; it is started again");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = cancel.cancelled() => return,
                }
            }
        }
    }

    /// Until the gateway's address changes.
    async fn serve(&self, gateway: IpAddr) -> io::Result<()> {
        let address = SocketAddr::new(gateway, self.port);
        let (udp, tcp) = (Arc::new(bind_udp(address)?), bind_tcp(address)?);
        let upstream = upstream(&self.resolv_conf, gateway);
        let shared = Shared {
            tables: self.tables.clone(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            tcp_permits: Arc::new(Semaphore::new(TCP_AT_ONCE)),
            upstream: Arc::new(upstream),
        };
        tracing::info!(%address, upstream = ?shared.upstream, "serving DNS");
        let mut tables = self.tables.clone();
        let mut buffer = vec![0; 4096];
        loop {
            // Cancel-safe: recv_from, accept and changed lose nothing when dropped.
            tokio::select! {
                received = udp.recv_from(&mut buffer) => {
                    let (length, from) = received?;
                    let Ok(permit) = shared.permits.clone().try_acquire_owned() else { continue };
                    let (shared, udp, query) = (shared.clone(), udp.clone(), buffer[..length].to_vec());
                    tokio::spawn(async move {
                        if let Some(answer) = shared.resolve(&query, Some(UDP_BYTES)).await {
                            // Lost answers are asked for again.
                            let _ = udp.send_to(&answer, from).await;
                        }
                        drop(permit);
                    });
                }
                accepted = tcp.accept() => {
                    let (stream, _) = accepted?;
                    let Ok(permit) = shared.tcp_permits.clone().try_acquire_owned() else { continue };
                    let shared = shared.clone();
                    tokio::spawn(async move {
                        // A client that goes away, or is idle, is no error of ours.
                        let _ = tokio::time::timeout(TCP_IDLE, shared.converse(stream)).await;
                        drop(permit);
                    });
                }
                changed = tables.changed() => {
                    let same = tables.borrow().as_ref().is_some_and(|table| table.gateway == gateway);
                    if changed.is_err() || !same {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl Shared {
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            let Some(answer) = self.resolve(&query, None).await else {
                return Ok(());
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return Ok(());
            };
            stream.write_u16(length).await?;
            stream.write_all(&answer).await?;
        }
    }

    async fn resolve(&self, bytes: &[u8], udp_bytes: Option<usize>) -> Option<Vec<u8>> {
        let query = Message::from_vec(bytes).ok()?;
        let table = self.tables.borrow().clone()?;
        let message = match table.judge(&query) {
            Verdict::Ignore => return None,
            Verdict::Answer(message) => *message,
            Verdict::Forward => match self.forward(bytes, query.id(), udp_bytes.is_none()).await {
                Some(answer) => return Some(answer),
                None => failure(&query, ResponseCode::ServFail),
            },
        };
        let answer = message.to_vec().ok()?;
        let room = udp_bytes.map(|least| usize::from(query.max_payload()).max(least));
        if room.is_some_and(|room| answer.len() > room) {
            return message.truncate().to_vec().ok();
        }
        Some(answer)
    }

    /// The first of the host's servers that answers.
    async fn forward(&self, query: &[u8], id: u16, tcp: bool) -> Option<Vec<u8>> {
        for server in self.upstream.iter() {
            let asked = async {
                if tcp {
                    ask_tcp(*server, query).await
                } else {
                    ask_udp(*server, query, id).await
                }
            };
            match tokio::time::timeout(UPSTREAM_TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a DNS server does not answer"),
                Err(_) => tracing::debug!(%server, "a DNS server does not answer in time"),
            }
        }
        None
    }
}

async fn ask_udp(server: SocketAddr, query: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer[..length].starts_with(&id.to_be_bytes()) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_u16(u16::try_from(query.len()).map_err(io::Error::other)?)
        .await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The address may not be on a device yet, or be away for a moment: `IP_FREEBIND`, ip(7).
fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    UdpSocket::from_std(fd.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(128)
}

/// `nameserver` lines of the host's resolv.conf; ourselves left out.
fn upstream(resolv_conf: &Path, own: IpAddr) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses
        .filter(|address| *address != own)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}
