//! One TCP connection: capabilities first, then requests and answers both ways, and a watchdog (RFC 6733, sections 5.3 and 5.5;
//! RFC 3539, section 3.4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use crate::codes::{application, avp, command, result};
use crate::node::{Identity, NodeError, Peers, Service};
use crate::{Avp, MAX_MESSAGE_BYTES, Message, Peer};

/// How long the exchange of capabilities may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A peer that is silent so long is asked whether it is there; after twice as long the connection ends. So it does if the peer takes
/// nothing for twice as long.
const WATCHDOG: Duration = Duration::from_secs(6);
/// How long it may take to say farewell, and to hear that it was heard.
const FAREWELL: Duration = Duration::from_secs(1);
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
    let exchange = tokio::time::timeout(HANDSHAKE, exchange);
    // Cancel-safe: a connection that is not to be needs nothing of what was read.
    let (host, realm) = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        exchanged = exchange => exchanged.map_err(|_| NodeError::NoCapabilities)??,
    };
    let (out, queue) = mpsc::channel(OUT_QUEUE);
    let closing = CancellationToken::new();
    let mut writer = std::pin::pin!(write_all(&mut write, queue, &host, &closing));
    let peer = Peer::new(&host, &realm, out);
    peers.add(&peer);
    tracing::info!(peer = host, "Diameter peer connected");
    // Cancel-safe: the writer goes on below, and talk is not needed any more if there is none.
    let end = tokio::select! {
        end = talk(&mut frames, &peer, identity, service, stop) => end,
        end = &mut writer => end.map(|()| None),
    };
    peers.remove(&peer);
    peer.end();
    let end = match end {
        Ok(Some(word)) => {
            let said = async {
                peer.send(word).await;
                closing.cancel();
            };
            let farewell = async {
                let (written, ()) = tokio::join!(writer, said);
                written?;
                farewell_heard(&mut frames).await
            };
            tokio::time::timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    tracing::info!(peer = host, "Diameter peer gone");
    end
}

/// Until the other has closed the connection, or said farewell, too.
async fn farewell_heard(frames: &mut Frames) -> Result<(), NodeError> {
    while let Some(message) = next(frames).await? {
        if message.header.command == command::DISCONNECT_PEER {
            break;
        }
    }
    Ok(())
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

/// Writes what is sent, until that is all of it and the connection is `closing`.
async fn write_all(
    write: &mut OwnedWriteHalf,
    mut queue: mpsc::Receiver<Message>,
    host: &str,
    closing: &CancellationToken,
) -> Result<(), NodeError> {
    loop {
        // Cancel-safe: a message that was not received stays in the queue.
        let message = tokio::select! {
            message = queue.recv() => message,
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(message) = message else {
            return Ok(());
        };
        let bytes = message.encode();
        let written = tokio::time::timeout(2 * WATCHDOG, write.write_all(&bytes)).await;
        let host = host.to_owned();
        written
            .map_err(|_| NodeError::Deaf { host })?
            .map_err(NodeError::Io)?;
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

/// Until the connection ends; returns the last word to the other, if there is one. It never waits for the other to read.
async fn talk<S: Service>(
    frames: &mut Frames,
    peer: &Peer,
    identity: &Identity,
    service: &Arc<S>,
    stop: &CancellationToken,
) -> Result<Option<Message>, NodeError> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut heard = Instant::now();
    let mut watchdog = tokio::time::interval(WATCHDOG / 2);
    loop {
        // Cancel-safe: a framed reader keeps what it has read, a place is given back, the others hold nothing.
        tokio::select! {
            () = stop.cancelled() => {
                let mut avps = identity.origin();
                avps.push(Avp::number(avp::DISCONNECT_CAUSE, REBOOTING));
                return Ok(Some(own_request(peer, command::DISCONNECT_PEER, avps)));
            }
            _ = watchdog.tick() => {
                if places.available_permits() == 0 {
                    // Nobody listens: the other may well have said something.
                    heard = Instant::now();
                }
                let silent = heard.elapsed();
                if silent >= 2 * WATCHDOG {
                    return Err(NodeError::Silent { host: peer.host().to_owned() });
                }
                if silent >= WATCHDOG {
                    peer.try_send(own_request(peer, command::DEVICE_WATCHDOG, identity.origin()));
                }
            }
            (place, message) = next_in_place(frames, &places) => {
                let Some(message) = message? else { return Ok(None) };
                heard = Instant::now();
                let (service, peer) = (service.clone(), peer.clone());
                match (message.header.request, message.header.command) {
                    (false, _) => peer.answered(message),
                    (true, command::DISCONNECT_PEER) => return Ok(Some(message.answer(identity.done()))),
                    (true, command::DEVICE_WATCHDOG) => {
                        let answer = message.answer(identity.done());
                        tokio::spawn(async move {
                            peer.send(answer).await;
                            drop(place);
                        });
                    }
                    (true, _) => {
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

/// What comes next, and a place for its answer.
async fn next_in_place(
    frames: &mut Frames,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, Result<Option<Message>, NodeError>) {
    let place = places.clone().acquire_owned().await;
    (place.expect("it is never closed"), next(frames).await)
}

/// A request that is the connection's own affair.
fn own_request(peer: &Peer, command: u32, avps: Vec<Avp>) -> Message {
    let mut request = Message::request(application::BASE, command, avps);
    request.header.proxiable = false;
    request.header.hop_by_hop = peer.next_number();
    request.header.end_to_end = request.header.hop_by_hop;
    request
}
