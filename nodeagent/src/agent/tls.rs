//! Mutual TLS towards the orchestrator, from files. Read anew on each connection, so that renewed certificates are taken.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gantry_nodeagent_api::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::settings::Orchestrator;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// A certificate or key.
    #[error("cannot use {what} {file}")]
    Identity {
        what: &'static str,
        file: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The network, or the handshake.
    #[error("cannot connect to the orchestrator at {address}")]
    Transport {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects once.
pub(super) async fn connect(to: &Orchestrator) -> Result<Channel, ConnectError> {
    let config = Arc::new(client_config(to)?);
    let host = to.host.clone();
    let port = to.port;
    let connector = tower::service_fn(move |_: http::Uri| {
        let (config, host) = (config.clone(), host.clone());
        async move { handshake(config, host, port).await.map(TokioIo::new) }
    });
    let address = if to.host.contains(':') {
        format!("[{}]:{port}", to.host)
    } else {
        format!("{}:{port}", to.host)
    };
    let failed = |source| ConnectError::Transport {
        address: address.clone(),
        source,
    };
    // `http`, because TLS is the connector's affair; the authority is what the orchestrator is called by.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(failed)
}

async fn handshake(config: Arc<ClientConfig>, host: String, port: u16) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

fn client_config(to: &Orchestrator) -> Result<ClientConfig, ConnectError> {
    let identity = |what: &'static str, file: &std::path::Path| {
        let file = file.display().to_string();
        move |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Identity { what, file, source }
    };
    let certificates = |what, file| {
        let list = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        list.map_err(|e| identity(what, file)(e.into()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authority", &to.ca)? {
        roots
            .add(certificate)
            .map_err(|e| identity("certificate authority", &to.ca)(e.into()))?;
    }
    let own = certificates("certificate", &to.cert)?;
    let key = PrivateKeyDer::from_pem_file(&to.key).map_err(|e| identity("key", &to.key)(e.into()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| identity("certificate", &to.cert)(e.into()))?;
    let mut config = builder
        .with_root_certificates(roots)
        .with_client_auth_cert(own, key)
        .map_err(|e| identity("certificate", &to.cert)(e.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
