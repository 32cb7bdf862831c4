//! What every server of the lab has around its core: a log, a configuration file, signals, and pages over HTTP.

mod page;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use page::{Metrics, Ready, pages, serve};

/// A log on standard error; `RUST_LOG` says how much of it.
pub fn log() {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Reads a configuration file (YAML); what is wrong is told with its line.
pub fn config<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{}", path.display()))
}

/// A runtime of two threads.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(runtime)
}

/// Takes a port of TCP.
pub async fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    let at = SocketAddr::from((address, port));
    TcpListener::bind(at)
        .await
        .with_context(|| format!("cannot listen on {at}"))
}

/// Stops on SIGTERM and SIGINT.
pub fn stop_on_signal(stop: CancellationToken) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        // Cancel-safe: both wait for a signal and hold nothing else.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// The first IPv4 address of a name, or an address as it is; with a port after it.
pub async fn resolve(name: &str) -> Result<SocketAddrV4> {
    let found = tokio::net::lookup_host(name).await;
    let found =
        found.with_context(|| format!("cannot find {name}: write a name or an address, and a port"))?;
    let mut found = found.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    found
        .next()
        .with_context(|| format!("{name} has no IPv4 address"))
}
