//! SPDY/3.1 in a WebSocket's messages. A connection is two streams with one `requestID`: `data`, and `error`, which ends empty or
//! with what went wrong.

use std::collections::HashMap;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use gantry_nodeagent_api::SessionFrame;
use tokio::sync::mpsc;

use super::spdy::{self, Decoder, Frame, Replies};
use super::{AT_ONCE, Connections, QUEUE, Said};

/// A connection: its data stream, and its error stream if the client has opened one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Streams {
    data: u32,
    error: Option<u32>,
}

/// Until the client is gone, or says what makes no sense.
pub(super) async fn run(
    socket: WebSocket,
    connections: Connections<Streams>,
    outgoing: mpsc::Receiver<(Streams, Said)>,
) {
    let (sink, stream) = socket.split();
    let (answers, answered) = mpsc::channel(QUEUE);
    let client = Client {
        connections,
        answers,
        errors: HashMap::new(),
        streams: HashMap::new(),
        replies: Replies::default(),
    };
    // Cancel-safe: whichever ends, nobody wants the rest of the other.
    tokio::select! {
        () = send(sink, answered, outgoing) => {}
        () = receive(stream, client) => {}
    }
}

/// Answers first: a stream is taken before anything comes on it.
async fn send(
    mut sink: SplitSink<WebSocket, Message>,
    mut answered: mpsc::Receiver<Bytes>,
    mut outgoing: mpsc::Receiver<(Streams, Said)>,
) {
    loop {
        // Cancel-safe: receivers lose nothing.
        let frames = tokio::select! {
            biased;
            Some(answer) = answered.recv() => vec![answer],
            Some((streams, said)) = outgoing.recv() => match said {
                Said::Data(data) => vec![spdy::data(streams.data, &data, false)],
                Said::End(how) => {
                    let why = how.err().unwrap_or_default();
                    let end = spdy::data(streams.data, b"", true);
                    let error = streams.error.map(|stream| spdy::data(stream, why.as_bytes(), true));
                    error.into_iter().chain([end]).collect()
                }
            },
            else => return,
        };
        for frame in frames {
            if sink.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
    }
}

async fn receive(mut stream: SplitStream<WebSocket>, mut client: Client) {
    let mut decoder = Decoder::default();
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
        };
        decoder.push(&bytes);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => client.take(frame).await,
                Ok(None) => break,
                Err(error) => return tracing::debug!(%error, "a port forward is ended"),
            }
        }
    }
}

struct Client {
    connections: Connections<Streams>,
    answers: mpsc::Sender<Bytes>,
    /// Error streams by `requestID`, until their connection begins.
    errors: HashMap<String, u32>,
    /// Connections by their data stream.
    streams: HashMap<u32, Streams>,
    replies: Replies,
}

impl Client {
    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Ping(id) => self.answer(spdy::pong(id)).await,
            Frame::Reset(stream) => {
                if let Some(streams) = self.streams.remove(&stream) {
                    self.connections.close(streams);
                }
            }
            Frame::Data { stream, data, last } => {
                let Some(streams) = self.streams.get(&stream).copied() else {
                    return;
                };
                if !data.is_empty() {
                    self.connections.give(streams, SessionFrame::Stdin(data)).await;
                }
                if last {
                    self.connections.give(streams, SessionFrame::StdinEof).await;
                }
            }
            Frame::Open { stream, headers } => {
                let reply = self.replies.to(stream);
                self.answer(reply).await;
                let text = |name: &str| headers.get(name).cloned().unwrap_or_default();
                let request = text("requestid");
                match text("streamtype").as_str() {
                    "error" if self.errors.len() < AT_ONCE => drop(self.errors.insert(request, stream)),
                    "data" => {
                        let streams = Streams {
                            data: stream,
                            error: self.errors.remove(&request),
                        };
                        // No port is port 0, to which no connection is made: that is said.
                        self.connections.open(streams, text("port").parse().unwrap_or(0));
                        let open = &self.connections.inputs;
                        self.streams.retain(|_, known| open.contains_key(known));
                        self.streams.insert(stream, streams);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Fails when the client is gone, which ends everything anyway.
    async fn answer(&self, frame: Bytes) {
        let _ = self.answers.send(frame).await;
    }
}
