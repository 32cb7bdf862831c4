//! Certificates that are not trusted any more: a list that the authority signs (RFC 5280, section 5), beside its certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams,
    SerialNumber,
};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{PkiError, files};

const FILE: &str = "revoked.crl";
/// The list once more: without it everything would be trusted again, so that one lost or damaged file is not enough for that.
const COPY: &str = "revoked.copy.crl";
/// Nobody fetches the list, so that it has no end of its own: as long as an authority lives.
const LIFE: Duration = Duration::days(3650);

/// What is revoked. Cheap enough to clone: it has a line for each time that somebody lost a key.
#[derive(Clone, Debug, Default)]
pub struct Revoked {
    /// Serial numbers as they stand in certificates, and since when.
    serials: BTreeMap<Vec<u8>, OffsetDateTime>,
}

impl Revoked {
    /// These serial numbers, from now on.
    pub(super) fn now(serials: impl Iterator<Item = Vec<u8>>) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            serials: serials.map(|serial| (serial, now)).collect(),
        }
    }

    /// The list in the directory of an authority; an empty one if there is none, an error if there is none that is good.
    pub(super) fn read(dir: &Path, authority: &str) -> Result<Self, PkiError> {
        let mut good: Option<Self> = None;
        let mut damaged = None;
        for path in paths(dir) {
            let Some(text) = files::read(&path)? else { continue };
            match Self::parse(&text, authority) {
                Some(list) => good = Some(good.unwrap_or_default().and(&list)),
                None => damaged = Some(path),
            }
        }
        match (good, damaged) {
            (None, Some(path)) => Err(PkiError::Revoked { path }),
            (good, _) => Ok(good.unwrap_or_default()),
        }
    }

    /// Nothing if it is no list, or not one of this authority.
    fn parse(text: &str, authority: &str) -> Option<Self> {
        let list = CertificateRevocationListDer::from_pem_slice(text.as_bytes()).ok()?;
        let (_, parsed) = CertificateRevocationList::from_der(&list).ok()?;
        let authority = super::parse(authority).ok()?;
        let (_, authority) = X509Certificate::from_der(&authority).ok()?;
        parsed.verify_signature(authority.public_key()).ok()?;
        let serials = parsed.iter_revoked_certificates().map(|revoked| {
            let since = revoked.revocation_date.to_datetime();
            (revoked.raw_serial().to_vec(), since)
        });
        Some(Self {
            serials: serials.collect(),
        })
    }

    /// True of the serial number of a revoked certificate.
    pub fn has(&self, serial: &[u8]) -> bool {
        self.serials.contains_key(serial)
    }

    /// How many of them another list lacks.
    pub(super) fn without(&self, other: &Self) -> usize {
        self.serials.keys().filter(|serial| !other.has(serial)).count()
    }

    /// With all of another list; what is in both, since when it is in this one.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (serial, since) in &other.serials {
            self.serials.entry(serial.clone()).or_insert(*since);
        }
        self
    }

    /// Writes the list.
    pub(super) fn write(&self, dir: &Path, issuer: &Issuer<'static, KeyPair>) -> Result<(), PkiError> {
        let now = OffsetDateTime::now_utc();
        let revoked = self.serials.iter().map(|(serial, since)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: *since,
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + LIFE,
            crl_number: SerialNumber::from(self.serials.len() as u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let text = list.signed_by(issuer).and_then(|list| list.pem());
        let text = text.map_err(|source| PkiError::Issue {
            name: FILE.to_owned(),
            source,
        })?;
        paths(dir).iter().try_for_each(|path| files::write(path, &text))
    }
}

fn paths(dir: &Path) -> [PathBuf; 2] {
    [FILE, COPY].map(|file| dir.join(file))
}
