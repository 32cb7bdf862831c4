//! Certificates: one authority a data directory, a server certificate, an administrator's, one a node. ECDSA P-256.

mod error;
mod files;
mod issue;
mod issuer;
mod kubeconfig;
mod revoked;
mod superseded;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub use error::PkiError;
use issue::{Authority, Leaf, Pair};
pub use issuer::{Certificate, Issuer, NodeCredentials};
pub use revoked::Revoked;
pub use superseded::Since;

use crate::apiserver::MASTERS;
use crate::cluster::Mark;

/// Below the data directory.
const DIR: &str = "pki";
/// Files of the administrator's certificate.
const ADMIN: &str = "admin";
/// Whom it names: whoever has the kubeconfig of the data directory.
pub(crate) const ADMINISTRATOR: &str = "gantry-admin";
/// What the files of nodes' certificates begin with.
const NODE: &str = "node-";
/// And those of other users.
const USER: &str = "user-";

/// The authority and what it has issued to the server and to the administrator.
pub struct Pki {
    issuer: Issuer,
    served: Arc<Served>,
    revoked: watch::Sender<Revoked>,
    /// Names and addresses of the server.
    names: Vec<String>,
    /// What clients on this machine dial.
    address: String,
    kubeconfig: PathBuf,
}

/// Whose authority is in a data directory. Changes nothing.
pub fn mark(data_dir: &Path) -> Result<Mark, PkiError> {
    Authority::mark(&data_dir.join(DIR))
}

/// Takes over into an unpacked backup what was revoked and issued since it was made, by the data directory that it replaces and
/// by what earlier restores moved aside there. A directory of another authority has nothing to say, one whose list is damaged is
/// an error, after all others were looked at.
pub fn carry_over(data_dir: &Path, backup: &Path) -> Result<Since, PkiError> {
    let into = backup.join(DIR);
    let authority = Authority::open(&into)?;
    let mut all = Since::default();
    let mut damaged = None;
    for from in superseded::directories(data_dir, DIR) {
        match superseded::carry_over(&from, &into, &authority) {
            Ok(since) => {
                all.revoked += since.revoked;
                all.issued += since.issued;
            }
            Err(error) => damaged = Some(error),
        }
    }
    damaged.map_or(Ok(all), Err)
}

/// Makes what is missing or near its end below `<data dir>/pki`, and writes `<data dir>/kubeconfig`. A new authority is that of
/// the cluster. `names` are further DNS names or addresses of the server.
pub fn ensure(data_dir: &Path, listen: SocketAddr, names: &[String], cluster: &str) -> Result<Pki, PkiError> {
    let dir = data_dir.join(DIR);
    files::private_dir(&dir)?;
    files::make_private(&dir)?;
    let authority = Authority::ensure(&dir, cluster)?;
    let pki = Pki {
        served: Arc::default(),
        revoked: watch::Sender::default(),
        names: server_names(listen, names),
        kubeconfig: data_dir.join("kubeconfig"),
        address: dial_address(listen),
        issuer: Issuer { dir, authority },
    };
    pki.reload()?;
    Ok(pki)
}

impl Pki {
    /// Issues the nodes' certificates.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Reads what is revoked, and issues anew what was or is near its end. Connections of whoever is revoked are to end.
    pub fn reload(&self) -> Result<(), PkiError> {
        let Issuer { dir, authority } = &self.issuer;
        let revoked = Revoked::read(dir, &authority.certificate)?;
        self.renew()?;
        self.revoked.send_replace(revoked);
        Ok(())
    }

    /// What is revoked, now and from now on.
    pub fn revoked(&self) -> watch::Receiver<Revoked> {
        self.revoked.subscribe()
    }

    /// Issues anew what is near its end, whoever it was issued to. The server shows its new certificate from now on; agents read
    /// theirs whenever they connect.
    pub fn renew(&self) -> Result<(), PkiError> {
        let Issuer { dir, authority } = &self.issuer;
        let server = authority.leaf(dir, "server", &Leaf::server(self.names.clone()))?;
        self.served.show(&server)?;
        let admin = authority.leaf(dir, ADMIN, &Leaf::client(ADMINISTRATOR, MASTERS))?;
        let text = kubeconfig::render(&self.address, &authority.certificate, ADMINISTRATOR, &admin);
        files::keep(&self.kubeconfig, &text)?;
        let nodes = files::names(dir, NODE)?;
        for node in nodes.iter().filter(|name| crate::kinds::is_dns_subdomain(name)) {
            self.issuer.issue_node(node)?;
        }
        superseded::forget_ended(dir, authority)
    }

    /// Where the kubeconfig is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// TLS 1.2 and 1.3 with the server's certificate; clients must show one of our authority.
    pub fn server_config(&self) -> Result<ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = |source| PkiError::Tls(Box::new(source));
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(parse(&self.issuer.authority.certificate)?)
            .map_err(tls)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|e| tls(rustls::Error::General(e.to_string())))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(verifier);
        Ok(builder.with_cert_resolver(self.served.clone()))
    }
}

/// The certificate that the server shows; a newer one takes its place while connections go on.
#[derive(Debug, Default)]
struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    fn show(&self, pair: &Pair) -> Result<(), PkiError> {
        let tls = |source| PkiError::Tls(Box::new(source));
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
            .map_err(|e| tls(rustls::Error::General(e.to_string())))?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(tls)?;
        let shown = CertifiedKey::new(vec![parse(&pair.certificate)?], key);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(shown));
        Ok(())
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn parse(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| PkiError::Tls(Box::new(rustls::Error::General(e.to_string()))))
}

/// An address that clients on this machine reach the listener at.
fn dial_address(listen: SocketAddr) -> String {
    let ip = if listen.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        listen.ip()
    };
    SocketAddr::new(ip, listen.port()).to_string()
}

fn server_names(listen: SocketAddr, names: &[String]) -> Vec<String> {
    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.ip().is_unspecified() {
        all.push(listen.ip().to_string());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_lowercase();
    if crate::kinds::is_dns_subdomain(&host) {
        all.push(host);
    }
    all.extend_from_slice(names);
    all.sort();
    all.dedup();
    all
}
