//! One TCP connection into a pod: to its loopback, or else to its address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_nodeagent_api::{SessionFrame, proto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};

use super::{CHUNK_BYTES, Pipe};
use crate::agent::pods::{Pods, network_mark};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects and copies; returns the last frame.
pub(super) async fn run(pods: &Arc<Pods>, pod: String, port: u16, pipe: &mut Pipe) -> SessionFrame {
    let pods = pods.clone();
    let connected = tokio::task::spawn_blocking(move || connect(&pods, &pod, port)).await;
    let stream = match connected.map_err(io::Error::other).and_then(|stream| stream) {
        Ok(stream) => stream,
        Err(error) => {
            return SessionFrame::Error(format!("cannot connect to port {port} of the pod: {error}"));
        }
    };
    let (out, inbound) = pipe.split();
    match copy(stream, out, inbound).await {
        Ok(()) => SessionFrame::Exit(0),
        Err(error) => SessionFrame::Error(format!("the connection to port {port} broke: {error}")),
    }
}

fn connect(pods: &Pods, uid: &str, port: u16) -> io::Result<TcpStream> {
    let dial = move || {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpStream::connect_timeout(&target, CONNECT_TIMEOUT).or_else(|refused| {
            let own = own_address()?.ok_or(refused)?;
            TcpStream::connect_timeout(&SocketAddr::from((own, port)), CONNECT_TIMEOUT)
        })
    };
    if pods.netns.exists(uid) {
        return pods.netns.within(uid, dial);
    }
    // A pod on the host's network has no namespace of its own. One that has lost it, or is gone, leads nowhere: least of all to
    // the host's own services.
    let dir = pods.runtime.pod(uid);
    if !dir.path().is_dir() || network_mark(&dir).exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no network"));
    }
    dial()
}

/// The address of the calling thread's namespace that is no loopback.
fn own_address() -> io::Result<Option<Ipv4Addr>> {
    let addresses = nix::ifaddrs::getifaddrs()?;
    let mut own = addresses.filter_map(|i| Some(i.address?.as_sockaddr_in()?.ip()));
    Ok(own.find(|address| !address.is_loopback()))
}

/// Both directions at once: a peer that waits for its output to be taken takes no input meanwhile.
async fn copy(
    stream: TcpStream,
    out: &mpsc::Sender<proto::SessionFrame>,
    inbound: impl Stream<Item = Result<proto::SessionFrame, tonic::Status>> + Unpin,
) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let (from, to) = stream.split();
    // Cancel-safe: whichever ends first, the rest of the other direction is of no use.
    tokio::select! {
        ended = give(from, out) => ended,
        ended = take(inbound, to) => ended,
    }
}

/// From the pod, until it has said everything or nobody wants it.
async fn give(mut from: ReadHalf<'_>, out: &mpsc::Sender<proto::SessionFrame>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        let frame = SessionFrame::Stdout(Bytes::copy_from_slice(&buffer[..length]));
        if length == 0 || out.send(frame.into()).await.is_err() {
            return Ok(());
        }
    }
}

/// To the pod, until the other side is gone.
async fn take(
    mut inbound: impl Stream<Item = Result<proto::SessionFrame, tonic::Status>> + Unpin,
    mut to: WriteHalf<'_>,
) -> io::Result<()> {
    while let Some(Ok(frame)) = inbound.next().await {
        match SessionFrame::try_from(frame) {
            Ok(SessionFrame::Stdin(data)) => to.write_all(&data).await?,
            Ok(SessionFrame::StdinEof) => to.shutdown().await?,
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bulk_goes_both_ways_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        // Gives back what it gets, and takes nothing while that is not taken.
        std::thread::spawn(move || {
            io::copy(&mut &peer, &mut &peer).unwrap();
        });
        let chunks = 1024;
        let data = |_| SessionFrame::Stdin(vec![b'x'; CHUNK_BYTES].into());
        let frames = (0..chunks).map(data).chain([SessionFrame::StdinEof]);
        let inbound = tokio_stream::iter(frames.map(|frame| Ok(frame.into()))).chain(tokio_stream::pending());
        let (out, mut sent) = mpsc::channel(1);
        let count = async {
            let mut bytes = 0;
            while let Some(frame) = sent.recv().await {
                if let Ok(SessionFrame::Stdout(data)) = SessionFrame::try_from(frame) {
                    bytes += data.len();
                }
            }
            bytes
        };
        let copied = async move { copy(stream, &out, inbound).await };
        let both = async { tokio::join!(copied, count) };
        let (copied, bytes) = tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("they wait for each other");
        copied.unwrap();
        assert_eq!(bytes, chunks * CHUNK_BYTES);
    }
}
