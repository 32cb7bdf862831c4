//! One TCP connection: capabilities first, then requests and answers both ways, and a watchdog (RFC 6733, sections 5.3 and 5.5;
//! RFC 3539, section 3.4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use crate::codes::{application, avp, command, result};
use crate::node::{Identity, NodeError, Peers, Service};
use crate::{Avp, MAX_MESSAGE_BYTES, Message, Peer};

/// How long the exchange of capabilities may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A peer that is silent so long is asked whether it is there; after twice as long the connection ends.
const WATCHDOG: Duration = Duration::from_secs(6);
/// Messages that wait to be written.
const OUT_QUEUE: usize = 256;
/// Requests of one peer that are being answered at once; those beyond wait in the socket.
const AT_ONCE: usize = 256;
/// Disconnect-Cause: will be back.
const REBOOTING: u32 = 0;

/// Who speaks first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Whoever has connected.
    Initiator,
    /// Whoever was connected to.
    Responder,
}

type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// Runs a connection until it ends, the peer says farewell, or `stop`.
pub(crate) async fn run<S: Service>(
    stream: TcpStream,
    side: Side,
    identity: &Identity,
    service: &Arc<S>,
    peers: &Peers,
    stop: &CancellationToken,
) -> Result<(), NodeError> {
    stream.set_nodelay(true).map_err(NodeError::Io)?;
    let (read, mut write) = stream.into_split();
    let mut frames = FramedRead::new(read, codec());
    let exchange = capabilities(&mut frames, &mut write, side, identity);
    let (host, realm) = tokio::time::timeout(HANDSHAKE, exchange)
        .await
        .map_err(|_| NodeError::NoCapabilities)??;
    let (out, queue) = mpsc::channel(OUT_QUEUE);
    let writer = tokio::spawn(write_all(write, queue));
    let peer = Peer::new(&host, &realm, out);
    peers.add(&peer);
    tracing::info!(peer = host, "Diameter peer connected");
    let end = talk(&mut frames, &peer, identity, service, stop).await;
    peers.remove(&peer);
    peer.end();
    drop(peer);
    // Tasks that still answer have a sender of their own, and end by themselves.
    writer.abort();
    tracing::info!(peer = host, "Diameter peer gone");
    end
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_offset(1)
        .length_field_length(3)
        .num_skip(0)
        .max_frame_length(MAX_MESSAGE_BYTES)
        .new_codec()
}

async fn next(frames: &mut Frames) -> Result<Option<Message>, NodeError> {
    let Some(frame) = frames.next().await else {
        return Ok(None);
    };
    let bytes = frame.map_err(NodeError::Io)?;
    Message::decode(&bytes).map(Some).map_err(NodeError::Malformed)
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        if write.write_all(&message.encode()).await.is_err() {
            // The reader sees the end, too.
            return;
        }
    }
}

/// Exchanges capabilities; returns the other's host and realm.
async fn capabilities(
    frames: &mut Frames,
    write: &mut OwnedWriteHalf,
    side: Side,
    identity: &Identity,
) -> Result<(String, String), NodeError> {
    if side == Side::Initiator {
        let mut request = Message::request(
            application::BASE,
            command::CAPABILITIES_EXCHANGE,
            identity.capabilities(),
        );
        request.header.proxiable = false;
        write.write_all(&request.encode()).await.map_err(NodeError::Io)?;
    }
    let other = next(frames).await?.ok_or(NodeError::NoCapabilities)?;
    let is_capabilities = other.header.command == command::CAPABILITIES_EXCHANGE;
    if !is_capabilities || other.header.request == (side == Side::Initiator) {
        return Err(NodeError::NoCapabilities);
    }
    let host = other.text(avp::ORIGIN_HOST).to_owned();
    let common = identity.has_common(&other.avps);
    if side == Side::Responder {
        let code = if common {
            result::SUCCESS
        } else {
            result::NO_COMMON_APPLICATION
        };
        let mut avps = vec![Avp::number(avp::RESULT_CODE, code)];
        avps.extend(identity.capabilities());
        let answer = other.answer(avps);
        write.write_all(&answer.encode()).await.map_err(NodeError::Io)?;
    } else if other.result() != Some(result::SUCCESS) {
        return Err(NodeError::Refused {
            host,
            code: other.result(),
        });
    }
    if !common {
        return Err(NodeError::NothingInCommon { host });
    }
    Ok((host, other.text(avp::ORIGIN_REALM).to_owned()))
}

/// Until the connection ends.
async fn talk<S: Service>(
    frames: &mut Frames,
    peer: &Peer,
    identity: &Identity,
    service: &Arc<S>,
    stop: &CancellationToken,
) -> Result<(), NodeError> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut heard = Instant::now();
    let mut watchdog = tokio::time::interval(WATCHDOG / 2);
    loop {
        // Cancel-safe: a framed reader keeps what it has read, the others hold nothing.
        tokio::select! {
            () = stop.cancelled() => {
                let mut avps = identity.origin();
                avps.push(Avp::number(avp::DISCONNECT_CAUSE, REBOOTING));
                farewell(peer, avps).await;
                return Ok(());
            }
            _ = watchdog.tick() => {
                let silent = heard.elapsed();
                if silent >= 2 * WATCHDOG {
                    return Err(NodeError::Silent { host: peer.host().to_owned() });
                }
                if silent >= WATCHDOG {
                    peer.send(own_request(peer, command::DEVICE_WATCHDOG, identity.origin())).await;
                }
            }
            message = next(frames) => {
                let Some(message) = message? else { return Ok(()) };
                heard = Instant::now();
                match (message.header.request, message.header.command) {
                    (false, _) => peer.answered(message),
                    (true, command::DEVICE_WATCHDOG) => peer.send(message.answer(identity.done())).await,
                    (true, command::DISCONNECT_PEER) => {
                        peer.send(message.answer(identity.done())).await;
                        return Ok(());
                    }
                    (true, _) => {
                        let place = places.clone().acquire_owned().await.expect("it is never closed");
                        let (service, peer) = (service.clone(), peer.clone());
                        tokio::spawn(async move {
                            let answer = service.answer(message, &peer).await;
                            peer.send(answer).await;
                            drop(place);
                        });
                    }
                }
            }
        }
    }
}

async fn farewell(peer: &Peer, avps: Vec<Avp>) {
    let request = own_request(peer, command::DISCONNECT_PEER, avps);
    peer.send(request).await;
    // Nothing more is expected: whoever goes only sees to it that the word is out.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// A request that is the connection's own affair.
fn own_request(peer: &Peer, command: u32, avps: Vec<Avp>) -> Message {
    let mut request = Message::request(application::BASE, command, avps);
    request.header.proxiable = false;
    request.header.hop_by_hop = peer.next_number();
    request.header.end_to_end = request.header.hop_by_hop;
    request
}
