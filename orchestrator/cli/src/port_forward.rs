//! `gantry port-forward`: ports of this machine's loopback that lead to a pod.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};

use crate::args::{PortForwardArgs, PortPair};
use crate::client::{Client, said};
use crate::output;

/// How long the pod may go on speaking when the local side has said all: the protocol has no end of one direction.
const LINGER: Duration = Duration::from_secs(10);

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
                eprintln!("gantry: port {port} of pod {pod}: {error:#}");
            }
        });
    }
}

async fn connection(mut local: TcpStream, pods: &Api<Pod>, pod: &str, port: u16) -> Result<()> {
    let mut forwarder = pods
        .portforward(pod, &[port])
        .await
        .map_err(said)
        .context("not forwarded")?;
    let streams = forwarder.take_stream(port).zip(forwarder.take_error(port));
    let (remote, trouble) = streams.context("the API server gives no stream")?;
    let (mut from_pod, mut to_pod) = tokio::io::split(remote);
    let (mut from_local, mut to_local) = local.split();
    let down = async { copy(&mut from_pod, &mut to_local).await.map(drop) };
    let up = async {
        copy(&mut from_local, &mut to_pod).await?;
        tokio::time::sleep(LINGER).await;
        Ok(())
    };
    // Cancel-safe: when one of them ends, nobody wants the rest of the other.
    let ended: std::io::Result<()> = tokio::select! {
        ended = down => ended,
        ended = up => ended,
    };
    forwarder.abort();
    if let Some(why) = trouble.await {
        bail!(why);
    }
    ended.context("the connection broke")
}
