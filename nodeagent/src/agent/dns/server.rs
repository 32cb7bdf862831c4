//! Serving: who may ask, from the table or from others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_nodeagent_api::Trouble;
use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::allow::{Allow, Rate};
use super::places::{Group, Place, Places, Source};
use super::table::Verdict;
use super::{Table, answer, socket, upstream};
use crate::core::{Event, PodRef};

/// How much may be under way, for one pod and for all; what is beyond is refused at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Bounds {
    /// Questions to the host's servers.
    pub(in crate::agent) forwards: (usize, usize),
    /// TCP connections; they never take UDP's place.
    pub(in crate::agent) connections: (usize, usize),
    /// Where all is taken, whoever has most gives way.
    pub(in crate::agent) give_way: bool,
    /// How long a connection may say nothing, and how long an answer may wait to be read.
    pub(in crate::agent) idle: Duration,
}

impl Bounds {
    /// All that comes.
    pub(in crate::agent) const NONE: Self = Self {
        forwards: (usize::MAX, usize::MAX),
        connections: (usize::MAX, usize::MAX),
        give_way: true,
        idle: TCP_IDLE,
    };
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            forwards: (64, 512),
            connections: (16, 256),
            give_way: true,
            idle: TCP_IDLE,
        }
    }
}

/// Longest question over UDP that is read: what is longer is no question.
const QUESTION_BYTES: usize = 4096;
/// Questions that are answered before others on this thread have a turn.
const BATCH: usize = 8;
const TCP_IDLE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
/// How often refused questions are told.
const TELL: Duration = Duration::from_secs(5);

type Tables = watch::Receiver<Option<Arc<Table>>>;

/// The server; follows the gateway's address.
pub(in crate::agent) struct Server {
    pub(in crate::agent) tables: Tables,
    pub(in crate::agent) port: u16,
    pub(in crate::agent) resolv_conf: PathBuf,
    pub(in crate::agent) rate: Rate,
    pub(in crate::agent) places: Bounds,
    /// Questions that were refused because their source asked too often, since the start.
    pub(in crate::agent) refused: Arc<AtomicU64>,
    /// Who is told which pod asks too much.
    pub(in crate::agent) events: mpsc::Sender<Event>,
}

struct Shared {
    tables: Tables,
    rate: Rate,
    allow: Mutex<Allow>,
    started: Instant,
    refused: Arc<AtomicU64>,
    forwards: Arc<Places>,
    connections: Arc<Places>,
    idle: Duration,
    upstream: Vec<SocketAddr>,
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
        let (udp, tcp) = (socket::udp(address)?, socket::tcp(address)?);
        let places = |(each, all)| Places::new(each, all, self.places.give_way);
        let shared = Arc::new(Shared {
            tables: self.tables.clone(),
            rate: self.rate,
            allow: Mutex::new(Allow::new(self.rate)),
            started: Instant::now(),
            refused: self.refused.clone(),
            forwards: places(self.places.forwards),
            connections: places(self.places.connections),
            idle: self.places.idle,
            upstream: upstream::servers(&self.resolv_conf, gateway),
        });
        tracing::info!(%address, upstream = ?shared.upstream, "serving DNS");
        let mut tables = self.tables.clone();
        let mut tell = tokio::time::interval(TELL);
        let mut sockets = JoinSet::new();
        for udp in udp {
            sockets.spawn(shared.clone().listen(udp.into()));
        }
        loop {
            // Cancel-safe: join_next, accept, changed and tick lose nothing when dropped.
            tokio::select! {
                Some(ended) = sockets.join_next() => return ended.unwrap_or_else(|e| Err(io::Error::other(e))),
                accepted = tcp.accept() => match accepted {
                    Ok((stream, from)) => shared.connection(stream, from.ip()),
                    // The client went away, or there are no descriptors: others may free some.
                    Err(error) => {
                        tracing::warn!(%error, "accept a DNS connection");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                _ = tell.tick() => shared.tell(&self.events),
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
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn source(&self, from: IpAddr) -> Source {
        let table = self.tables.borrow();
        table.as_ref().map_or(Source::UNKNOWN, |table| table.source(from))
    }

    fn passes(&self, from: &Source) -> bool {
        let now_ms = self.now_ms();
        let passes = self
            .allow
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pass(from.address, now_ms);
        if !passes {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    /// A question or connection that has no place, or no more.
    fn refuse(&self, from: &Source) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut allow = self.allow.lock().unwrap_or_else(PoisonError::into_inner);
        allow.refuse(from.address, self.now_ms());
    }

    /// Once in a while.
    fn tell(&self, events: &mpsc::Sender<Event>) {
        let refused = self
            .allow
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused();
        for (from, count) in refused {
            let pod = from.filter(|from| matches!(self.source(*from).group, Group::Namespace(_)));
            if let Some(IpAddr::V4(address)) = pod {
                let rate = self.rate.per_second;
                let message = format!(
                    "it asks for more than {rate} names a second, or too many at once: the rest is refused"
                );
                // The core is busy: it is told again while it goes on.
                let _ = events.try_send(Event::Trouble {
                    pod: PodRef::Address(address),
                    trouble: Trouble::DnsRateLimit,
                    message,
                });
            }
            let from = match from {
                None => "sources without number".to_owned(),
                Some(from) if from == Source::UNKNOWN.address => "sources that are no pods".to_owned(),
                Some(from) => from.to_string(),
            };
            tracing::warn!(from, count, "asks DNS too often: questions were refused");
        }
    }

    /// Answers what comes to one socket.
    async fn listen(self: Arc<Self>, udp: Arc<UdpSocket>) -> io::Result<()> {
        let mut buffer = vec![0; QUESTION_BYTES];
        loop {
            udp.readable().await?;
            self.questions(&udp, &mut buffer);
            tokio::task::yield_now().await;
        }
    }

    /// Answers what has come over UDP, some of it.
    fn questions(self: &Arc<Self>, udp: &Arc<UdpSocket>, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match udp.try_recv_from(buffer) {
                Ok((length, from)) => {
                    let source = self.source(from.ip());
                    if self.passes(&source) {
                        self.question(udp, &buffer[..length], from, source);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Something about an earlier answer: nothing of this socket's.
                Err(error) => tracing::debug!(%error, "receive a DNS question"),
            }
        }
    }

    fn question(self: &Arc<Self>, udp: &Arc<UdpSocket>, bytes: &[u8], from: SocketAddr, source: Source) {
        let Some((query, verdict)) = self.judge(bytes) else {
            return;
        };
        // Lost answers are asked for again.
        let send = |message: &Message| {
            let answer = answer::encode(&query, message, true);
            let _ = answer.map(|answer| udp.try_send_to(&answer, from));
        };
        match verdict {
            Verdict::Ignore => {}
            Verdict::Answer(message) => send(&message),
            Verdict::Forward => {
                let Some(place) = self.forwards.take(&source) else {
                    self.refuse(&source);
                    return send(&answer::empty(&query, ResponseCode::ServFail));
                };
                let (shared, udp, bytes) = (self.clone(), udp.clone(), bytes.to_vec());
                tokio::spawn(async move {
                    if let Some(answer) = shared.forward(&query, &bytes, true, &source, &place).await {
                        let _ = udp.send_to(&answer, from).await;
                    }
                });
            }
        }
    }

    fn judge(&self, bytes: &[u8]) -> Option<(Message, Verdict)> {
        let Ok(query) = Message::from_vec(bytes) else {
            return answer::malformed(bytes)
                .map(|(query, answer)| (query, Verdict::Answer(Box::new(answer))));
        };
        let verdict = self.tables.borrow().as_ref()?.judge(&query);
        Some((query, verdict))
    }

    /// What others answer; else, or if somebody else gets its place, that it failed.
    async fn forward(
        &self,
        query: &Message,
        bytes: &[u8],
        udp: bool,
        source: &Source,
        place: &Place,
    ) -> Option<Vec<u8>> {
        // Cancel-safe: who has no place any more needs no answer from others.
        let answer = tokio::select! {
            answer = upstream::forward(&self.upstream, bytes, !udp) => answer,
            () = place.lost.cancelled() => {
                self.refuse(source);
                None
            }
        };
        answer.or_else(|| answer::encode(query, &answer::empty(query, ResponseCode::ServFail), udp))
    }

    fn connection(self: &Arc<Self>, stream: TcpStream, from: IpAddr) {
        let source = self.source(from);
        let Some(place) = self.connections.take(&source) else {
            return self.refuse(&source);
        };
        let shared = self.clone();
        tokio::spawn(async move {
            // A client that goes away, or is idle, is no error of ours. Cancel-safe: the connection ends either way.
            tokio::select! {
                _ = shared.converse(stream, &source) => {}
                () = place.lost.cancelled() => shared.refuse(&source),
            }
        });
    }

    /// One question after the other, for as long as they come.
    async fn converse(&self, mut stream: TcpStream, source: &Source) -> io::Result<()> {
        loop {
            let bytes = tokio::time::timeout(self.idle, read_question(&mut stream)).await??;
            if !self.passes(source) {
                return Ok(());
            }
            let Some((query, verdict)) = self.judge(&bytes) else {
                return Ok(());
            };
            let answer = match verdict {
                Verdict::Ignore => None,
                Verdict::Answer(message) => answer::encode(&query, &message, false),
                Verdict::Forward => match self.forwards.take(source) {
                    Some(place) => self.forward(&query, &bytes, false, source, &place).await,
                    None => {
                        self.refuse(source);
                        answer::encode(&query, &answer::empty(&query, ResponseCode::ServFail), false)
                    }
                },
            };
            let Some(message) = answer.and_then(|answer| answer::framed(&answer)) else {
                return Ok(());
            };
            tokio::time::timeout(self.idle, stream.write_all(&message)).await??;
        }
    }
}

async fn read_question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
