//! One connection: handshake, whose it is, requests, its end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use gantry_nodeagent_api::CONNECTION_WINDOW_BYTES;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::auth::{self, Admission, Identity};
use super::frames::Framed;
use super::held;
use super::limits::ConnectionLimits;
use super::share::{self, Arrivals, Client, Counted, Unread};
use super::stall::Stall;
use super::strangers::{Stranger, Strangers};
use crate::pki::Revoked;

/// A peer is asked for a sign of life so often, and has as long to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Bytes of an HTTP/1.1 head and of what is read at once; of HTTP/2 headers a quarter, as hyper has it.
const HEAD_BYTES: usize = 64 << 10;
/// HTTP/2 streams that were reset by the peer and not looked at yet (CVE-2023-44487).
const RESETS: usize = 20;
/// HTTP/2 streams that we reset ourselves because the peer broke the rules.
const OWN_RESETS: usize = 256;
/// Bytes of an answer that wait for the peer, on each HTTP/2 stream.
const SEND_BYTES: usize = 64 << 10;

/// What is under way when a certificate is revoked has so long to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Who is connected. Cheap to clone.
#[derive(Clone)]
pub(super) struct Doors {
    limits: ConnectionLimits,
    revoked: watch::Receiver<Revoked>,
    strangers: Strangers,
    users: Arc<Mutex<HashMap<String, usize>>>,
    unread: Unread,
    arrivals: Arrivals,
}

/// The place of all users in the map of users: no certificate has an empty name.
const ALL: &str = "";

impl Doors {
    pub fn new(limits: ConnectionLimits, revoked: watch::Receiver<Revoked>) -> Self {
        Self {
            unread: Unread::new(limits.unread),
            arrivals: Arrivals::new(limits.arriving),
            strangers: Strangers::new(limits.handshakes, limits.fair_handshakes),
            limits,
            revoked,
            users: Arc::default(),
        }
    }

    /// A new connection; another goes if too many are not known yet.
    pub fn stranger(&self, stream: &TcpStream, from: IpAddr) -> Stranger {
        self.strangers.come(stream, from)
    }

    async fn handshake(
        &self,
        stranger: &Stranger,
        stream: TcpStream,
        tls: TlsAcceptor,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        stream.set_nodelay(true)?;
        let shaken = tokio::time::timeout(self.limits.handshake, stranger.shakes(tls.accept(stream)));
        // Cancel-safe: an unfinished handshake is of no use.
        tokio::select! {
            biased;
            () = stranger.pushed_out.cancelled() => Err("too many others knock".into()),
            shaken = shaken => Ok(shaken??),
        }
    }

    /// Counts a connection of somebody who is known now. Nodes are no users: they always find room.
    fn known(&self, identity: &Identity) -> Result<Vec<Counted>, Failure> {
        let count = |user, most| share::count(&self.users, user, most);
        let own = count(&identity.user, self.limits.per_user);
        let own = own.ok_or_else(|| format!("{:?} has too many connections", identity.user))?;
        if identity.node().is_some() {
            return Ok(vec![own]);
        }
        let all = count(ALL, self.limits.total).ok_or("there are too many connections")?;
        Ok(vec![own, all])
    }
}

/// Requests under way on a connection.
struct Activity {
    under_way: AtomicUsize,
    last: Mutex<Instant>,
}

struct UnderWay(Arc<Activity>);

impl Activity {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Returns when there has been no request for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let busy = self.under_way.load(Ordering::Relaxed) > 0;
            let until = if busy { Instant::now() } else { last } + limit;
            if !busy && until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whom the client's certificate names, and its serial number.
fn identity(stream: &TlsStream<TcpStream>) -> Option<(Identity, Vec<u8>)> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok().map(str::to_owned))
        .collect();
    Some((Identity { user, groups }, parsed.raw_serial().to_vec()))
}

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    stranger: Stranger,
    tls: TlsAcceptor,
    mut router: Router,
    doors: Doors,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let stream = doors.handshake(&stranger, stream, tls).await?;
    let number = stranger.number;
    drop(stranger);
    let (identity, serial) = identity(&stream).ok_or("the client certificate has no common name")?;
    // Here, not in the handshake: a session that is resumed shows no certificate again.
    let admission = Admission::new(serial, doors.revoked.clone());
    let mut is_revoked = admission.is_withdrawn();
    if is_revoked {
        tracing::warn!(user = identity.user, "a revoked certificate is refused");
        router = Router::new().fallback(auth::refuse);
    }
    let counted = doors.known(&identity)?;
    let is_node = identity.node().is_some();
    let client = Client::new(identity.user.clone(), number, doors.unread.clone());
    let end = client.end.clone();
    let mut withdrawn = std::pin::pin!(auth::withdrawn(Some(admission.clone())));
    let activity = Arc::new(Activity {
        under_way: AtomicUsize::new(0),
        last: Mutex::new(Instant::now()),
    });
    let arrivals = doors.arrivals.clone();
    let service = service_fn({
        let activity = activity.clone();
        move |mut request: hyper::Request<Incoming>| {
            let under_way = activity.begin();
            // Nodes are no users: they always find room.
            let arriving = (!is_node).then(|| arrivals.begin(&client.user, request.headers()));
            let changes = !request.method().is_safe();
            let may_ask = if changes { client.may_ask() } else { Ok(()) };
            let answer = match may_ask.and(arriving.transpose()) {
                Ok(arriving) => {
                    let extensions = request.extensions_mut();
                    if let Some(arriving) = arriving {
                        extensions.insert(Arc::new(arriving));
                    }
                    extensions.insert(identity.clone());
                    extensions.insert(client.clone());
                    extensions.insert(admission.clone());
                    Ok(router.clone().oneshot(request.map(axum::body::Body::new)))
                }
                Err(error) => Err(error),
            };
            let client = client.clone();
            async move {
                let (answer, done) = match answer {
                    Ok(answer) => (answer.await?, changes),
                    Err(error) => (error.into_response(), false),
                };
                Ok::<_, Infallible>(held::keep(client.reads(answer, done), under_way))
            }
        }
    });
    let mut builder = builder(&stream, &doors.limits);
    if is_node {
        builder
            .http2()
            .initial_stream_window_size(doors.limits.node_window)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    }
    let frames = is_http2(&stream).then_some(doors.limits.frames);
    let stream = Framed::new(stream, frames);
    let stream = TokioIo::new(Stall::new(stream, doors.limits.stall, counted));
    let mut served = std::pin::pin!(builder.serve_connection_with_upgrades(stream, service));
    let mut closing = false;
    loop {
        // Cancel-safe: the connection is polled on, the others hold nothing.
        tokio::select! {
            done = served.as_mut() => return done,
            () = end.cancelled() => return Err("it does not read its answers".into()),
            () = shutdown.cancelled(), if !closing => {}
            () = activity.idle(doors.limits.idle), if !closing => {}
            () = withdrawn.as_mut(), if !is_revoked => is_revoked = true,
            () = tokio::time::sleep(LAST_WORDS), if is_revoked && closing => return Err("its certificate is revoked".into()),
        }
        closing = true;
        served.as_mut().graceful_shutdown();
    }
}

/// The protocol is what both ends agreed on, so that no byte of the client is waited for to find it out.
fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn builder(stream: &TlsStream<TcpStream>, limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.windows.0)
        .initial_connection_window_size(limits.windows.1)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(OWN_RESETS)
        .max_send_buf_size(SEND_BYTES);
    if is_http2(stream) {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}
