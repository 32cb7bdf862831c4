//! What a container that has ended has to say: what it wrote into its file, or the end of its log. Bounded, whatever it wrote.
//!
//! Source: k8s.io, `terminationMessagePath` and `terminationMessagePolicy`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::runtime::LastWords;

/// Of the file, from its end (Kubernetes' bound).
const FILE_BYTES: u64 = 4096;
/// Of the log: this many lines and bytes of what was said (Kubernetes' bounds),
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;
/// and this much of the file, in which each line has a head of some 50 bytes.
const LOG_FILE_BYTES: u64 = 16 << 10;

/// Empty if it has nothing to say, or that cannot be read.
pub(super) fn read(wanted: &LastWords, log: &Path, failed: bool) -> String {
    let own = wanted
        .file
        .as_deref()
        .and_then(|file| end_of(file, FILE_BYTES).ok());
    let own = own.unwrap_or_default();
    if own.is_empty() && failed && wanted.from_log {
        let log = end_of(log, LOG_FILE_BYTES).unwrap_or_default();
        return text(said(&log));
    }
    text(own)
}

fn end_of(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most_bytes)))?;
    let mut bytes = Vec::new();
    file.take(most_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last lines of a log without their heads (`<time> <stream> <F|P> <text>`).
fn said(log: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut goes_on = false;
    for record in log.split(|b| *b == b'\n') {
        let mut columns = record.splitn(4, |b| *b == b' ').skip(2);
        let (Some(flag), Some(text)) = (columns.next(), columns.next()) else {
            continue;
        };
        match lines.last_mut().filter(|_| goes_on) {
            Some(line) => line.extend_from_slice(text),
            None => lines.push(text.to_vec()),
        }
        goes_on = flag == b"P";
    }
    let first = lines.len().saturating_sub(LOG_LINES);
    let mut said = lines.split_off(first).join(&b'\n');
    if !said.is_empty() {
        said.push(b'\n');
    }
    said.split_off(said.len().saturating_sub(LOG_BYTES))
}

/// Not in the middle of a character.
fn text(bytes: Vec<u8>) -> String {
    let begun = bytes.iter().take(3).take_while(|b| **b & 0xc0 == 0x80).count();
    String::from_utf8_lossy(&bytes[begun..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_words_come_before_its_log_and_both_have_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("words"), dir.path().join("0.log"));
        let head = "2026-11-21T09:00:00.5Z stdout";
        std::fs::write(&log, format!("{head} F one\n{head} P tw\n{head} F o\n")).unwrap();
        std::fs::write(&file, "").unwrap();
        let mut wanted = LastWords {
            file: Some(file.clone()),
            from_log: false,
        };
        assert_eq!(read(&wanted, &log, true), "");
        wanted.from_log = true;
        assert_eq!(read(&wanted, &log, false), "");
        assert_eq!(read(&wanted, &log, true), "one\ntwo\n");
        std::fs::write(&file, "\u{e9}".repeat(5000)).unwrap();
        assert_eq!(read(&wanted, &log, true), "\u{e9}".repeat(2048));
        std::fs::write(&file, format!("x{}", "\u{e9}".repeat(5000))).unwrap();
        assert_eq!(read(&wanted, &log, true).len(), 4096);
        std::fs::remove_file(&file).unwrap();
        let many: String = (0..500).map(|i| format!("{head} F line {i}\n")).collect();
        std::fs::write(&log, many).unwrap();
        let told = read(&wanted, &log, true);
        assert_eq!((told.lines().count(), told.ends_with("line 499\n")), (80, true));
        std::fs::write(&log, format!("{head} F {}\n", "x".repeat(9000))).unwrap();
        assert_eq!(read(&wanted, &log, true).len(), LOG_BYTES);
    }
}
