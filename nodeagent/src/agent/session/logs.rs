//! Reads a container's log: CRI format (`<RFC 3339> <stream> <F|P> <text>`), across its rotation.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gantry_nodeagent_api::SessionFrame;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{CHUNK_BYTES, Pipe, container_of};
use crate::agent::pods::{attempt_of, log_dir};
use crate::runtime::PodDir;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Which lines, and how.
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) tail_lines: Option<u64>,
    pub(super) previous: bool,
    pub(super) since_ms: Option<u64>,
    pub(super) timestamps: bool,
}

/// Sends the lines; returns the last frame.
pub(super) async fn run(dir: &PodDir, container: &str, wanted: Wanted, pipe: &mut Pipe) -> SessionFrame {
    match stream(dir, container, wanted, pipe).await {
        Ok(()) => SessionFrame::Exit(0),
        Err(reason) => SessionFrame::Error(reason),
    }
}

async fn stream(dir: &PodDir, container: &str, wanted: Wanted, pipe: &mut Pipe) -> Result<(), String> {
    let container = container_of(dir, container)?;
    let mut path =
        newest(&log_dir(dir, &container), wanted.previous).map_err(|e| format!("{container}: {e}"))?;
    let mut text = std::fs::read(rotated(&path)).unwrap_or_default();
    let mut tail = Tail::open(&path).map_err(|e| e.to_string())?;
    text.extend(tail.read().map_err(|e| e.to_string())?);
    let lines = select(&text, &wanted);
    if !send(&lines, pipe).await {
        return Ok(());
    }
    if !wanted.follow || wanted.previous {
        return Ok(());
    }
    loop {
        // Cancel-safe: nothing is lost by waiting again.
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            frame = pipe.receive() => if frame.is_none() { return Ok(()) },
        }
        let mut text = tail.read().map_err(|e| e.to_string())?;
        // A container that was started again writes another file.
        if let Ok(now) = newest(&log_dir(dir, &container), false)
            && now != path
        {
            path = now;
            tail = Tail::open(&path).map_err(|e| e.to_string())?;
            text.extend(tail.read().map_err(|e| e.to_string())?);
        } else if !dir.path().exists() {
            return Ok(());
        }
        let each = Wanted {
            tail_lines: None,
            ..wanted
        };
        if !text.is_empty() && !send(&select(&text, &each), pipe).await {
            return Ok(());
        }
    }
}

async fn send(bytes: &[u8], pipe: &Pipe) -> bool {
    for chunk in bytes.chunks(CHUNK_BYTES) {
        if !pipe
            .send(SessionFrame::Stdout(Bytes::copy_from_slice(chunk)))
            .await
        {
            return false;
        }
    }
    true
}

/// `<attempt>.log` of the last attempt, or of the one before.
fn newest(dir: &Path, previous: bool) -> io::Result<PathBuf> {
    let mut attempts: Vec<u32> = std::fs::read_dir(dir)?
        .flatten()
        .filter_map(|e| attempt_of(&e.path()))
        .collect();
    attempts.sort_unstable();
    attempts.dedup();
    let found = attempts.iter().rev().nth(usize::from(previous));
    let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such log"))?;
    Ok(dir.join(format!("{found}.log")))
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Reads whole lines as they come, also across a rotation.
struct Tail {
    path: PathBuf,
    file: File,
    rest: Vec<u8>,
}

impl Tail {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path)?,
            rest: Vec::new(),
        })
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        self.file.read_to_end(&mut self.rest)?;
        if let Ok(now) = std::fs::metadata(&self.path) {
            let own = self.file.metadata()?;
            if (now.ino(), now.dev()) != (own.ino(), own.dev()) {
                self.file = File::open(&self.path)?;
                self.file.read_to_end(&mut self.rest)?;
            } else if now.len() < self.file.stream_position()? {
                self.file.seek(SeekFrom::Start(0))?;
                self.file.read_to_end(&mut self.rest)?;
            }
        }
        let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(end);
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

/// The wanted lines of a piece of log, without CRI's columns.
fn select(text: &[u8], wanted: &Wanted) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut partial = false;
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let mut columns = line.splitn(4, |b| *b == b' ');
        let (Some(time), Some(_), Some(flag)) = (columns.next(), columns.next(), columns.next()) else {
            continue;
        };
        if wanted
            .since_ms
            .is_some_and(|since| time_ms(time).is_some_and(|at| at < since))
        {
            continue;
        }
        let message = columns.next().unwrap_or_default();
        if partial && let Some(last) = lines.last_mut() {
            last.extend(message);
        } else {
            let mut shown = Vec::new();
            if wanted.timestamps {
                shown.extend(time);
                shown.push(b' ');
            }
            shown.extend(message);
            lines.push(shown);
        }
        partial = flag.first() == Some(&b'P');
    }
    let skip = wanted.tail_lines.map_or(0, |n| {
        lines
            .len()
            .saturating_sub(usize::try_from(n).unwrap_or(usize::MAX))
    });
    let mut shown = Vec::new();
    for line in &lines[skip..] {
        shown.extend(line);
        shown.push(b'\n');
    }
    shown
}

fn time_ms(text: &[u8]) -> Option<u64> {
    let time = OffsetDateTime::parse(std::str::from_utf8(text).ok()?, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T09:00:00.5Z stdout F one\n2026-11-21T09:00:01Z stderr P tw\n\
                       2026-11-21T09:00:01Z stderr F o\n2026-11-21T09:00:02Z stdout F three  spaced\n";

    fn shown(tail_lines: Option<u64>, since_ms: Option<u64>, timestamps: bool) -> String {
        let wanted = Wanted {
            follow: false,
            tail_lines,
            previous: false,
            since_ms,
            timestamps,
        };
        String::from_utf8(select(LOG.as_bytes(), &wanted)).unwrap()
    }

    #[test]
    fn lines_are_joined_cut_and_stamped() {
        assert_eq!(shown(None, None, false), "one\ntwo\nthree  spaced\n");
        assert_eq!(shown(Some(1), None, false), "three  spaced\n");
        assert_eq!(shown(None, Some(1_795_251_601_000), true).lines().count(), 2);
        assert!(shown(Some(1), None, true).starts_with("2026-11-21T09:00:02Z three"));
    }

    #[test]
    fn follows_across_a_rotation() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "a\nb").unwrap();
        let mut tail = Tail::open(&path).unwrap();
        assert_eq!(tail.read().unwrap(), b"a\n");
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"c\n")
            .unwrap();
        std::fs::rename(&path, rotated(&path)).unwrap();
        std::fs::write(&path, "d\n").unwrap();
        assert_eq!(tail.read().unwrap(), b"bc\nd\n");
        assert_eq!(newest(dir.path(), false).unwrap(), path);
        assert!(newest(dir.path(), true).is_err());
    }
}
