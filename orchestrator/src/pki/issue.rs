//! Issuing and renewing.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{PkiError, files};

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// Life of the others; renewed at a start when less than a quarter is left.
const LEAF_LIFE: Duration = Duration::days(365);
/// Clocks may differ by so much.
const SKEW: Duration = Duration::minutes(5);

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

impl Authority {
    /// The one in the directory, or a new one.
    pub fn ensure(dir: &Path) -> Result<Self, PkiError> {
        let (certificate_file, key_file) = (files::certificate(dir, "ca"), files::key(dir, "ca"));
        if let (Some(certificate), Some(key)) = (files::read(&certificate_file)?, files::read(&key_file)?) {
            let key = KeyPair::from_pem(&key).map_err(failed("ca"))?;
            let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(failed("ca"))?;
            return Ok(Self { certificate, issuer });
        }
        let key = new_key("ca")?;
        let mut params = parameters(Vec::new(), "gantry-ca", AUTHORITY_LIFE).map_err(failed("ca"))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed("ca"))?.pem();
        // The key first: a certificate without its key would be taken for damage.
        files::write(&key_file, &key.serialize_pem())?;
        files::write(&certificate_file, &certificate)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The certificate in the directory if it is still good, or a new one.
    pub fn leaf(&self, dir: &Path, name: &str, leaf: &Leaf) -> Result<Pair, PkiError> {
        let (certificate_file, key_file) = (files::certificate(dir, name), files::key(dir, name));
        if let (Some(certificate), Some(key)) = (files::read(&certificate_file)?, files::read(&key_file)?)
            && KeyPair::from_pem(&key).is_ok()
            && self.is_good(&certificate, leaf)
        {
            return Ok(Pair { certificate, key });
        }
        let key = new_key(name)?;
        let mut params = parameters(leaf.names.clone(), &leaf.user, LEAF_LIFE).map_err(failed(name))?;
        if let Some(group) = &leaf.group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group.as_str());
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

    /// Of this authority, for these names, and with time left.
    fn is_good(&self, certificate: &str, leaf: &Leaf) -> bool {
        let (Ok(der), Ok(ca)) = (super::parse(certificate), super::parse(&self.certificate)) else {
            return false;
        };
        let (Ok((_, parsed)), Ok((_, ca))) =
            (X509Certificate::from_der(&der), X509Certificate::from_der(&ca))
        else {
            return false;
        };
        let left = parsed.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
        let named = parsed.subject_alternative_name().ok().flatten();
        let found: Vec<String> = named
            .iter()
            .flat_map(|n| &n.value.general_names)
            .filter_map(text)
            .collect();
        left > LEAF_LIFE.whole_seconds() / 4
            && parsed.verify_signature(Some(ca.public_key())).is_ok()
            && leaf.names.iter().all(|name| found.contains(name))
    }
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
