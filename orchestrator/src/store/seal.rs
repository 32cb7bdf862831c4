//! Values that are encrypted on the disk: AES-256-GCM, each bound to its key, so that none can be put in another's place.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

/// Length of the key in bytes.
pub const KEY_BYTES: usize = 32;
/// In front of what is sealed. No plain value starts so: they are JSON or text.
const MAGIC: [u8; 4] = [0, b'G', b'S', 1];

/// Seals values under some prefixes; all others stay as they are.
pub struct Seal {
    key: RandomizedNonceKey,
    prefixes: Vec<String>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("prefixes", &self.prefixes).finish()
    }
}

impl Seal {
    /// With a key, for keys of the store that start with one of these.
    pub fn new(key: &[u8; KEY_BYTES], prefixes: Vec<String>) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).expect("a key of the algorithm's length");
        Self { key, prefixes }
    }

    /// Whether values of this key are to be sealed.
    pub(super) fn covers(&self, key: &str) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| key.starts_with(prefix.as_str()))
    }

    /// As it goes to the disk.
    pub(super) fn seal(&self, key: &str, value: &[u8]) -> Vec<u8> {
        let mut sealed = value.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(key.as_bytes()), &mut sealed)
            .expect("a value is shorter than the cipher's bound of 64 GiB");
        [&MAGIC[..], nonce.as_ref(), &sealed].concat()
    }

    /// As it came from there; `None` if it was sealed with another key, for another key of the store, or was changed.
    fn open(&self, key: &str, sealed: &[u8]) -> Option<Bytes> {
        let (nonce, rest) = sealed.get(MAGIC.len()..)?.split_at_checked(NONCE_LEN)?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(key.as_bytes()), &mut rest);
        Some(Bytes::copy_from_slice(plain.ok()?))
    }
}

/// Whether a value on the disk is sealed.
pub(super) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(&MAGIC)
}

/// Opens values from the disk, sealed or not. One that does not open stays as it is, which is no object any more: whoever reads
/// it sets it apart. If none opens, the key is another's.
pub(super) struct Opener<'a> {
    seal: Option<&'a Seal>,
    opened: bool,
    closed: Option<String>,
}

impl<'a> Opener<'a> {
    pub fn new(seal: Option<&'a Seal>) -> Self {
        Self {
            seal,
            opened: false,
            closed: None,
        }
    }

    pub fn open(&mut self, key: &str, value: &[u8]) -> Bytes {
        if !is_sealed(value) {
            return Bytes::copy_from_slice(value);
        }
        match self.seal.and_then(|seal| seal.open(key, value)) {
            Some(plain) => {
                self.opened = true;
                plain
            }
            None => {
                tracing::error!(
                    key,
                    "a value cannot be decrypted: it is damaged, or sealed with another key"
                );
                self.closed = Some(key.to_owned());
                Bytes::copy_from_slice(value)
            }
        }
    }

    /// All values have been seen.
    pub fn end(self) -> Result<(), String> {
        match (self.closed, self.seal) {
            (Some(key), None) => Err(format!("{key} is encrypted, and secrets.key is missing")),
            (Some(key), Some(_)) if !self.opened => Err(format!(
                "{key} cannot be decrypted with secrets.key, and neither can any other value: the key is another's, or damaged"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_with_its_key_in_its_place_only() {
        let seal = Seal::new(&[7; KEY_BYTES], vec!["/secrets/".to_owned()]);
        assert!(seal.covers("/secrets/a") && !seal.covers("/other/a"));
        let sealed = seal.seal("/secrets/a", b"top secret");
        assert!(!sealed.windows(3).any(|w| w == b"top"));
        assert_ne!(
            sealed,
            seal.seal("/secrets/a", b"top secret"),
            "no nonce is used twice"
        );
        let open = |seal, key, value: &[u8]| {
            let mut opener = Opener::new(seal);
            let value = opener.open(key, value);
            opener.end().map(|()| value)
        };
        assert_eq!(open(Some(&seal), "/secrets/a", &sealed).unwrap(), "top secret");
        assert_eq!(
            open(Some(&seal), "/secrets/a", b"{}").unwrap(),
            "{}",
            "the first version's are plain"
        );
        assert!(open(Some(&seal), "/secrets/b", &sealed).is_err());
        assert!(
            open(None, "/secrets/a", &sealed)
                .unwrap_err()
                .contains("secrets.key is missing")
        );
        let other = Seal::new(&[8; KEY_BYTES], Vec::new());
        assert!(open(Some(&other), "/secrets/a", &sealed).is_err());
        for cut in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[cut] ^= 1;
            assert!(open(Some(&seal), "/secrets/a", &changed).map_or(true, |v| v != "top secret"));
            assert!(open(Some(&seal), "/secrets/a", &sealed[..cut]).map_or(true, |v| v != "top secret"));
        }
    }
}
