//! SHA-256 digests, and readers and writers that compute them on the way.

use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// A content digest `sha256:<64 lower-case hex digits>` (OCI image spec, descriptor.md). Other algorithms
/// are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Parses `sha256:<hex>`; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        Self::from_hex(hex)
    }

    /// Takes the 64 lower-case hex digits alone.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let ok = hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(hex.to_owned()))
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    /// The 64 hex digits, safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Passes bytes through, counting and hashing them; fails once more than `limit_bytes` came.
pub struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    read_bytes: u64,
    limit_bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R, limit_bytes: u64) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            read_bytes: 0,
            limit_bytes,
        }
    }

    /// Digest and length of all that was read.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(hex::encode(self.hash.finalize())), self.read_bytes)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read_bytes += n as u64;
        if self.read_bytes > self.limit_bytes {
            return Err(io::Error::other(format!(
                "holds more than the {} bytes allowed",
                self.limit_bytes
            )));
        }
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}

/// Passes bytes through to `inner`, counting and hashing them.
pub struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    written_bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            written_bytes: 0,
        }
    }

    /// The inner writer, and digest and length of all that was written.
    pub fn finish(self) -> (W, Digest, u64) {
        (
            self.inner,
            Digest(hex::encode(self.hash.finalize())),
            self.written_bytes,
        )
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.written_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_lower_case_sha256_is_taken() {
        let good = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(Digest::parse(&good).expect("valid").to_string(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            &good.to_uppercase(),
            &good[..70],
            "sha512:aa",
        ] {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn reader_and_writer_agree_with_the_whole() {
        let data = vec![7_u8; 100_000];
        let mut reader = HashingReader::new(&data[..], 200_000);
        let mut writer = HashingWriter::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        assert_eq!(reader.finish(), (Digest::of(&data), 100_000));
        let (out, digest, len) = writer.finish();
        assert_eq!((out.len(), digest, len), (100_000, Digest::of(&data), 100_000));
    }

    #[test]
    fn reader_stops_at_its_limit() {
        let data = [0_u8; 100];
        let err = io::copy(&mut HashingReader::new(&data[..], 99), &mut io::sink()).unwrap_err();
        assert!(err.to_string().contains("99 bytes"));
    }
}
