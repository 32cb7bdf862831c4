//! Clients' certificates: issued, listed, taken back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::issue::{Authority, Leaf};
use super::superseded::Lasting;
use super::{ADMIN, DIR, NODE, PkiError, Revoked, USER, dial_address, files, kubeconfig, parse, superseded};
use crate::apiserver::{MASTERS, NODE_PREFIX, NODES};

/// Gantry itself, and what begins so: a person of this name would be taken for a part of it.
const OWN: &str = "gantry";

/// Files that an agent needs to dial in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCredentials {
    /// The authority's certificate (PEM).
    pub ca: PathBuf,
    /// The node's certificate (PEM): CN `system:node:<name>`, O `system:nodes`.
    pub certificate: PathBuf,
    /// Its private key (PEM, PKCS #8).
    pub key: PathBuf,
}

/// A client's certificate.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Certificate {
    /// `admin`, `node-<node>`, `user-<user>`.
    pub name: String,
    /// Whom it names (CN, O).
    pub subject: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// End, RFC 3339.
    pub not_after: String,
}

/// Issues clients' certificates, and takes them back.
pub struct Issuer {
    pub(super) dir: PathBuf,
    pub(super) authority: Authority,
}

impl Issuer {
    /// By the authority of a data directory, which must be there.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join(DIR);
        let authority = Authority::open(&dir)?;
        Ok(Self { dir, authority })
    }

    /// The cluster of the authority.
    pub fn cluster(&self) -> Option<String> {
        self.authority.cluster()
    }

    /// A certificate for a node's agent; the one there is if it still lasts. Names are DNS names (RFC 1123).
    pub fn issue_node(&self, name: &str) -> Result<NodeCredentials, PkiError> {
        if !crate::kinds::is_dns_subdomain(name) {
            return Err(PkiError::NodeName(name.to_owned()));
        }
        let file = format!("{NODE}{name}");
        self.authority.leaf(
            &self.dir,
            &file,
            &Leaf::client(&format!("{NODE_PREFIX}{name}"), NODES),
        )?;
        Ok(NodeCredentials {
            ca: files::certificate(&self.dir, "ca"),
            certificate: files::certificate(&self.dir, &file),
            key: files::key(&self.dir, &file),
        })
    }

    /// A kubeconfig for a person of this name, an administrator; with the certificate that is there if it still lasts.
    pub fn user_kubeconfig(&self, name: &str, listen: SocketAddr) -> Result<String, PkiError> {
        if !crate::kinds::is_dns_label(name) {
            return Err(PkiError::UserName(name.to_owned()));
        }
        if name == OWN || name.strip_prefix(OWN).is_some_and(|rest| rest.starts_with('-')) {
            return Err(PkiError::ReservedName(name.to_owned()));
        }
        let leaf = Leaf::client(name, MASTERS);
        let pair = self.authority.leaf(&self.dir, &format!("{USER}{name}"), &leaf)?;
        let (address, authority) = (dial_address(listen), &self.authority.certificate);
        Ok(kubeconfig::render(&address, authority, name, &pair))
    }

    /// The clients' certificates that open the door, by name; a name has several where a newer one has taken an older one's place.
    pub fn certificates(&self) -> Result<Vec<Certificate>, PkiError> {
        let held = self.held()?;
        Ok(held.into_iter().map(|(_, certificate)| certificate).collect())
    }

    /// Each as it is shown, too.
    fn held(&self) -> Result<Vec<(Lasting, Certificate)>, PkiError> {
        let revoked = Revoked::read(&self.dir, &self.authority.certificate)?;
        let mut lasting = superseded::lasting(&self.dir, &self.authority)?;
        lasting.retain(|lasting| !revoked.has(&lasting.serial));
        lasting.sort_by(|a, b| a.file.cmp(&b.file));
        let shown = lasting.into_iter().filter_map(|lasting| {
            let shown = certificate(superseded::name_of(&lasting.file).to_owned(), &lasting.pem)?;
            Some((lasting, shown))
        });
        Ok(shown.collect())
    }

    /// Whoever has the key of a certificate of one of these names is nobody, as soon as the server has read it: of all, or of none
    /// if one is not known. The administrator and nodes are issued another one then.
    pub fn revoke(&self, names: &[String]) -> Result<Vec<Certificate>, PkiError> {
        let mut held = self.held()?;
        if let Some(name) = names
            .iter()
            .find(|name| !held.iter().any(|(_, c)| c.name == **name))
        {
            return Err(PkiError::Unknown(name.clone()));
        }
        held.retain(|(_, certificate)| names.contains(&certificate.name));
        let serials = held.iter().map(|(lasting, _)| lasting.serial.clone());
        self.authority.revoke(&self.dir, &Revoked::now(serials))?;
        for (Lasting { file, .. }, certificate) in &held {
            if certificate.name.starts_with(USER) || superseded::is_superseded(file) {
                files::remove(&files::certificate(&self.dir, file))?;
                files::remove(&files::key(&self.dir, file))?;
            }
        }
        Ok(held.into_iter().map(|(_, certificate)| certificate).collect())
    }
}

/// By the name of a certificate.
pub(super) fn is_clients(name: &str) -> bool {
    name == ADMIN || name.starts_with(NODE) || name.starts_with(USER)
}

/// Nothing if it is damaged.
fn certificate(name: String, pem: &str) -> Option<Certificate> {
    let der = parse(pem).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let end = parsed.validity().not_after.to_datetime();
    Some(Certificate {
        name,
        subject: parsed.subject().to_string(),
        serial: hex::encode(parsed.raw_serial()),
        not_after: end.format(&time::format_description::well_known::Rfc3339).ok()?,
    })
}
