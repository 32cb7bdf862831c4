//! Issuing and renewing.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{PkiError, Revoked, files, superseded};
use crate::cluster::Mark;

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// Life of the others; renewed at a start when less than a quarter is left.
const LEAF_LIFE: Duration = Duration::days(365);
/// Clocks may differ by so much.
const SKEW: Duration = Duration::minutes(5);

/// In the authority's certificate, as a name of the authority (RFC 5280, 4.2.1.6): whose it is.
const CLUSTER_URI: &str = "urn:uuid:";

/// Certificate and key as PEM.
pub(super) struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Signs.
pub(super) struct Authority {
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
pub(super) struct Leaf {
    user: String,
    group: Option<String>,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
}

impl Leaf {
    pub fn server(names: Vec<String>) -> Self {
        Self {
            user: "gantry".to_owned(),
            group: None,
            names,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }

    pub fn client(user: &str, group: &str) -> Self {
        Self {
            user: user.to_owned(),
            group: Some(group.to_owned()),
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}

fn failed(name: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    let name = name.to_owned();
    move |source| PkiError::Issue { name, source }
}

fn new_key(name: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed(name))
}

fn parameters(names: Vec<String>, user: &str, life: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, user);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// What there is of an authority in a directory.
enum Found {
    Nothing,
    /// Its certificate can be made anew.
    Key(KeyPair),
    Both {
        certificate: String,
        key: KeyPair,
        cluster: Option<String>,
    },
}

fn find(dir: &Path) -> Result<Found, PkiError> {
    let (certificate_file, key_file) = (files::certificate(dir, "ca"), files::key(dir, "ca"));
    let bad = |problem| PkiError::Authority {
        path: key_file.clone(),
        problem,
    };
    let certificate = files::read(&certificate_file)?;
    let Some(key) = files::read(&key_file)? else {
        return match certificate {
            Some(_) => Err(bad("is missing")),
            None => Ok(Found::Nothing),
        };
    };
    let key = KeyPair::from_pem(&key).map_err(|_| bad("is damaged"))?;
    let read = certificate.and_then(|pem| facts(&pem).map(|facts| (pem, facts)));
    let Some((certificate, facts)) = read else {
        return Ok(Found::Key(key));
    };
    if facts.public_key != key.subject_public_key_info() {
        return Err(bad("and ca.crt beside it do not belong together"));
    }
    Ok(Found::Both {
        certificate,
        key,
        cluster: facts.cluster,
    })
}

/// What is asked of a certificate.
struct Facts {
    public_key: Vec<u8>,
    cluster: Option<String>,
}

fn facts(pem: &str) -> Option<Facts> {
    let der = super::parse(pem).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let names = parsed.subject_alternative_name().ok()?;
    let cluster = names
        .into_iter()
        .flat_map(|n| &n.value.general_names)
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(CLUSTER_URI).map(str::to_owned),
            _ => None,
        });
    Some(Facts {
        public_key: parsed.public_key().raw.to_vec(),
        cluster,
    })
}

impl Authority {
    /// Whose authority is in the directory.
    pub fn mark(dir: &Path) -> Result<Mark, PkiError> {
        Ok(match find(dir)? {
            Found::Nothing => Mark::Absent,
            // Of which cluster, the key alone does not tell.
            Found::Key(_) => Mark::Unmarked,
            Found::Both { cluster, .. } => cluster.map_or(Mark::Unmarked, Mark::Of),
        })
    }

    /// The one in the directory.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        match find(dir)? {
            Found::Both {
                certificate,
                key,
                cluster: Some(_),
            } => Self::of(certificate, key),
            _ => Err(PkiError::Authority {
                path: files::certificate(dir, "ca"),
                problem: "is missing, or of another version",
            }),
        }
    }

    /// The one in the directory, or a new one. A certificate that is lost, or names no cluster, is made anew with the same
    /// key: whoever trusts the old one trusts it, and what it has signed stays good.
    pub fn ensure(dir: &Path, cluster: &str) -> Result<Self, PkiError> {
        let (certificate_file, key_file) = (files::certificate(dir, "ca"), files::key(dir, "ca"));
        let key = match find(dir)? {
            Found::Both {
                certificate,
                key,
                cluster: Some(_),
            } => return Self::of(certificate, key),
            Found::Both { key, .. } | Found::Key(key) => {
                tracing::warn!(file = %certificate_file.display(), cluster, "the authority's certificate is made anew, with the same key");
                key
            }
            Found::Nothing => {
                let key = new_key("ca")?;
                // The key first: a certificate without its key would be taken for damage.
                files::write(&key_file, &key.serialize_pem())?;
                key
            }
        };
        let mut params = parameters(Vec::new(), "gantry-ca", AUTHORITY_LIFE).map_err(failed("ca"))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let uri = format!("{CLUSTER_URI}{cluster}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(failed("ca"))?)];
        let certificate = params.self_signed(&key).map_err(failed("ca"))?.pem();
        files::write(&certificate_file, &certificate)?;
        Self::of(certificate, key)
    }

    fn of(certificate: String, key: KeyPair) -> Result<Self, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(failed("ca"))?;
        Ok(Self { certificate, issuer })
    }

    /// The cluster whose authority this is.
    pub fn cluster(&self) -> Option<String> {
        facts(&self.certificate)?.cluster
    }

    /// The certificate in the directory if it is still good, or a new one.
    pub fn leaf(&self, dir: &Path, name: &str, leaf: &Leaf) -> Result<Pair, PkiError> {
        let (certificate_file, key_file) = (files::certificate(dir, name), files::key(dir, name));
        if let (Some(certificate), Some(key)) = (files::read(&certificate_file)?, files::read(&key_file)?)
            && let Ok(parsed) = KeyPair::from_pem(&key)
            && facts(&certificate).is_some_and(|facts| facts.public_key == parsed.subject_public_key_info())
            && self.is_good(dir, &certificate, leaf)?
        {
            return Ok(Pair { certificate, key });
        }
        if certificate_file.exists() {
            tracing::info!(file = %certificate_file.display(), "the certificate is issued anew");
        }
        self.issue(dir, name, leaf, LEAF_LIFE)
    }

    pub(super) fn issue(
        &self,
        dir: &Path,
        name: &str,
        leaf: &Leaf,
        life: Duration,
    ) -> Result<Pair, PkiError> {
        let (certificate_file, key_file) = (files::certificate(dir, name), files::key(dir, name));
        let key = new_key(name)?;
        let mut params = parameters(leaf.names.clone(), &leaf.user, life).map_err(failed(name))?;
        if let Some(group) = &leaf.group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group.as_str());
        }
        if leaf.usage == ExtendedKeyUsagePurpose::ClientAuth {
            superseded::keep(dir, name, self)?;
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage.clone()];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(name))?.pem();
        let pair = Pair {
            certificate,
            key: key.serialize_pem(),
        };
        files::write(&key_file, &pair.key)?;
        files::write(&certificate_file, &pair.certificate)?;
        Ok(pair)
    }

    /// Certificates with these serial numbers are not trusted any more.
    pub fn revoke(&self, dir: &Path, serials: &Revoked) -> Result<(), PkiError> {
        let revoked = Revoked::read(dir, &self.certificate)?;
        revoked.and(serials).write(dir, &self.issuer)
    }

    /// The serial number of a certificate that this authority has signed and that has not ended.
    pub fn lasting(&self, certificate: &str) -> Option<Vec<u8>> {
        self.of_ours(certificate, |parsed| {
            (left_s(parsed) > 0).then(|| parsed.raw_serial().to_vec())
        })?
    }

    /// Of this authority, for these names, not revoked, and with time left.
    fn is_good(&self, dir: &Path, certificate: &str, leaf: &Leaf) -> Result<bool, PkiError> {
        let revoked = Revoked::read(dir, &self.certificate)?;
        let is_good = |parsed: &X509Certificate<'_>| {
            let named = parsed.subject_alternative_name().ok().flatten();
            let found: Vec<String> = named
                .iter()
                .flat_map(|n| &n.value.general_names)
                .filter_map(text)
                .collect();
            left_s(parsed) > LEAF_LIFE.whole_seconds() / 4
                && !revoked.has(parsed.raw_serial())
                && leaf.names.iter().all(|name| found.contains(name))
        };
        Ok(self.of_ours(certificate, is_good).unwrap_or(false))
    }

    /// Looks at a certificate that this authority has signed; `None` if it is damaged or another's.
    fn of_ours<T>(&self, pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
        let (der, authority) = (super::parse(pem).ok()?, super::parse(&self.certificate).ok()?);
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let (_, authority) = X509Certificate::from_der(&authority).ok()?;
        parsed.verify_signature(Some(authority.public_key())).ok()?;
        Some(look(&parsed))
    }
}

/// Seconds until its end.
fn left_s(certificate: &X509Certificate<'_>) -> i64 {
    certificate.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp()
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(std::net::IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            _ => Some(std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        _ => None,
    }
}
