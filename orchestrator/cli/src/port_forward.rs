//! `gantry port-forward`: ports of this machine's loopback that lead to a pod.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::args::{PortForwardArgs, PortPair};
use crate::client::{Client, said};
use crate::output;

/// How long the pod may go on speaking when the local side has said all: the protocol has no end of one direction.
const LINGER: Duration = Duration::from_secs(10);

/// Channels of a connection's one port.
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Most bytes of one message; the server takes up to 1 MiB.
const PIECE_BYTES: usize = 32 << 10;

/// Until interrupted.
pub async fn run(client: &Client, args: &PortForwardArgs) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.kube(), &client.namespace);
    pods.get(&args.pod)
        .await
        .map_err(said)
        .with_context(|| format!("no pod {}", args.pod))?;
    let mut listeners = Vec::new();
    for PortPair { local, remote } in &args.ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *local))
            .await
            .with_context(|| {
                format!("cannot listen on port {local} of the loopback; another can be named before a colon")
            })?;
        let address = listener.local_addr().context("the listener has no address")?;
        output::write_out(&format!("Forwarding from {address} -> {remote}\n"))?;
        listeners.push(serve(listener, &pods, &args.pod, *remote));
    }
    try_join_all(listeners).await.map(|_| ())
}

async fn serve(listener: TcpListener, pods: &Api<Pod>, pod: &str, port: u16) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot take a connection")?;
        let (pods, pod) = (pods.clone(), pod.to_owned());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &pods, &pod, port).await {
                gantry_log::say(format_args!("gantry: port {port} of pod {pod}: {error:#}"));
            }
        });
    }
}

async fn connection(local: TcpStream, pods: &Api<Pod>, pod: &str, port: u16) -> Result<()> {
    let request = Request::new(pods.resource_url()).portforward(pod, &[port]);
    let request = request.context("not a port of a pod")?;
    let connection = pods.clone().into_client().connect(request).await;
    let connection = connection.map_err(said).context("not forwarded")?;
    carry(local, connection.into_stream()).await
}

/// Bytes of one connection, by `v4.channel.k8s.io`: the first byte of a message is its channel. Both directions go on at once (one
/// after the other, as kube's own forwarder has them, waits for ever when both are full).
async fn carry<L, R>(local: L, remote: WebSocketStream<R>) -> Result<()>
where
    L: AsyncRead + AsyncWrite,
    R: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_local, mut to_local) = tokio::io::split(local);
    let (mut to_pod, mut from_pod) = remote.split();
    let up = async {
        let mut message = vec![DATA; 1 + PIECE_BYTES];
        loop {
            let count = from_local.read(&mut message[1..]).await;
            let count = count.context("the connection here broke")?;
            let piece = Message::binary(message[..=count].to_vec());
            // Why nothing can be sent any more comes from the other direction.
            if count == 0 || to_pod.send(piece).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(LINGER).await;
        Ok(())
    };
    let down = async {
        // The first message of each channel is the port.
        let mut begun = [false; 2];
        while let Some(message) = from_pod.next().await {
            let bytes = match message.context("the connection to the API server broke")? {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            let Some((&channel @ (DATA | ERROR), piece)) = bytes.split_first() else {
                continue;
            };
            if !std::mem::replace(&mut begun[usize::from(channel)], true) {
                continue;
            }
            if channel == ERROR {
                bail!("{}", String::from_utf8_lossy(piece));
            }
            to_local
                .write_all(piece)
                .await
                .context("the connection here broke")?;
        }
        Ok(())
    };
    // Cancel-safe: when one of them ends, nobody wants the rest of the other.
    tokio::select! {
        ended = down => ended,
        ended = up => ended,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex, split};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// Little room on the way, and much to say: each of them would be full.
    const ROOM_BYTES: usize = 4 << 10;
    const BULK_BYTES: usize = 3 << 20;

    /// The two ends of a connection: of who dialled in here, and of the API server.
    async fn ends() -> (
        DuplexStream,
        WebSocketStream<DuplexStream>,
        impl Future<Output = Result<()>>,
    ) {
        let (dialled, local) = duplex(ROOM_BYTES);
        let (near, far) = duplex(ROOM_BYTES);
        let client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        for channel in [DATA, ERROR] {
            server.send(Message::binary(vec![channel, 80, 0])).await.unwrap();
        }
        (dialled, server, carry(local, client))
    }

    #[tokio::test]
    async fn an_echo_of_more_than_there_is_room_for_comes_back_whole() {
        let (dialled, server, carried) = ends().await;
        let carried = tokio::spawn(carried);
        let (mut to_client, mut from_client) = server.split();
        // As the API server has it: while the client takes nothing it takes nothing either.
        let echo = tokio::spawn(async move {
            while let Some(Ok(message)) = from_client.next().await {
                to_client.send(message).await.unwrap();
            }
        });
        let content: Vec<u8> = (0..BULK_BYTES).map(|i| (i % 251) as u8).collect();
        let (mut output, mut input) = split(dialled);
        let said = content.clone();
        let speak = tokio::spawn(async move { input.write_all(&said).await });
        let mut back = vec![0; BULK_BYTES];
        output.read_exact(&mut back).await.unwrap();
        assert!(back == content, "it came back different");
        speak.await.unwrap().unwrap();
        carried.abort();
        echo.abort();
    }

    #[tokio::test]
    async fn it_ends_when_the_pod_ends_it_and_says_what_went_wrong() {
        let (mut dialled, mut server, carried) = ends().await;
        let bye = async {
            server.send(Message::binary(b"\0bye".to_vec())).await.unwrap();
            server.send(Message::Close(None)).await.unwrap();
            let mut text = [0; 3];
            dialled.read_exact(&mut text).await.unwrap();
            text
        };
        let (ended, text) = tokio::join!(carried, bye);
        ended.unwrap();
        assert_eq!(&text, b"bye");
        let (_dialled, mut server, carried) = ends().await;
        let refuse = server.send(Message::binary(b"\x01refused".to_vec()));
        let (ended, sent) = tokio::join!(carried, refuse);
        sent.unwrap();
        assert_eq!(ended.unwrap_err().to_string(), "refused");
    }
}
