//! `v4.channel.k8s.io`: the first byte of a message is its channel. The port at place `i` of those asked for has the channels
//! `2i` for data and `2i + 1` for what went wrong; the first message of each is the port, in two bytes, the lower one first.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use gantry_nodeagent_api::SessionFrame;
use tokio::sync::mpsc;

use super::{Connections, Said};

/// Until all connections have ended, or the client is gone. The protocol has no end of one direction.
pub(super) async fn run(
    socket: WebSocket,
    mut connections: Connections<u8>,
    outgoing: mpsc::Receiver<(u8, Said)>,
    ports: &[u16],
) {
    let (mut sink, stream) = socket.split();
    for (channel, port) in (0..).step_by(2).zip(ports) {
        for channel in [channel, channel + 1] {
            if sink.send(message(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        connections.open(channel, *port);
    }
    // Both directions go on at once: a pod that waits for its output to be taken takes no input meanwhile.
    // Cancel-safe: whichever ends, nobody wants the rest of the other.
    tokio::select! {
        () = send(sink, outgoing, ports.len()) => {}
        () = receive(stream, connections) => {}
    }
}

async fn send(
    mut sink: SplitSink<WebSocket, Message>,
    mut outgoing: mpsc::Receiver<(u8, Said)>,
    mut left: usize,
) {
    while left > 0
        && let Some((channel, said)) = outgoing.recv().await
    {
        let next = match said {
            Said::Data(data) => Some(message(channel, &data)),
            Said::End(how) => {
                left -= 1;
                how.err().map(|why| message(channel + 1, why.as_bytes()))
            }
        };
        if let Some(next) = next
            && sink.send(next).await.is_err()
        {
            return;
        }
    }
    let close = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    // The client may be gone already.
    let _ = sink.send(Message::Close(Some(close))).await;
}

async fn receive(mut stream: SplitStream<WebSocket>, connections: Connections<u8>) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) if !bytes.is_empty() => {
                let data = SessionFrame::Stdin(bytes.slice(1..));
                connections.give(bytes[0], data).await;
            }
            Message::Close(_) => return,
            _ => {}
        }
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.extend_from_slice(data);
    Message::Binary(Bytes::from(bytes))
}
