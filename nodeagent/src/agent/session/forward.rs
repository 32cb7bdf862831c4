//! One TCP connection into a pod: to its loopback, or else to its address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_nodeagent_api::SessionFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    match copy(stream, pipe).await {
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

async fn copy(stream: TcpStream, pipe: &mut Pipe) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let (mut from, mut to) = stream.split();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // Cancel-safe: read takes nothing when dropped, frames stay in their channel.
        tokio::select! {
            length = from.read(&mut buffer) => match length? {
                0 => return Ok(()),
                length => {
                    if !pipe.send(SessionFrame::Stdout(Bytes::copy_from_slice(&buffer[..length]))).await {
                        return Ok(());
                    }
                }
            },
            frame = pipe.receive() => match frame {
                Some(SessionFrame::Stdin(data)) => to.write_all(&data).await?,
                Some(SessionFrame::StdinEof) => to.shutdown().await?,
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}
