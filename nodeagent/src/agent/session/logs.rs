//! Reads a container's log: CRI format (`<RFC 3339> <stream> <F|P> <text>`), across its rotation.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gantry_nodeagent_api::SessionFrame;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use super::{CHUNK_BYTES, Pipe, container_of};
use crate::agent::pods::{attempt_of, log_dir};
use crate::runtime::{ContainerState, PodDir};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Most bytes of a log that are looked at at once; more than a record has.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces that were read and not sent yet.
const PIECES: usize = 2;

/// Which lines, and how.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) tail_lines: Option<u64>,
    pub(super) previous: bool,
    pub(super) since_ms: Option<u64>,
    /// As CRI's column calls it.
    pub(super) stream: Option<String>,
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
    let follow = wanted.follow && !wanted.previous;
    let (to, mut pieces) = mpsc::channel(PIECES);
    let reader = Reader {
        pod: dir.clone(),
        logs: log_dir(dir, &container),
        container: container.clone(),
        wanted,
        continues: false,
        shown: Vec::new(),
        to,
    };
    let reading = tokio::task::spawn_blocking(move || reader.run());
    loop {
        // Cancel-safe: pieces and frames stay in their channels.
        tokio::select! {
            piece = pieces.recv() => match piece {
                Some(piece) => if !send(&piece, pipe).await { return Ok(()) },
                None => break,
            },
            frame = pipe.receive(), if follow => if frame.is_none() { return Ok(()) },
        }
    }
    reading
        .await
        .map_err(io::Error::other)
        .and_then(|read| read)
        .map_err(|e| format!("{container}: {e}"))
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

/// Reads a log on a thread of its own, a piece at a time. Ends when everything is sent, or nobody wants it any more.
struct Reader {
    pod: PodDir,
    container: String,
    logs: PathBuf,
    wanted: Wanted,
    /// The last line shown has not come to its end.
    continues: bool,
    shown: Vec<u8>,
    to: mpsc::Sender<Vec<u8>>,
}

impl Reader {
    fn run(mut self) -> io::Result<()> {
        let path = newest(&self.logs, self.wanted.previous)?;
        let mut tail = Tail::open(&path)?;
        if let Ok(mut old) = Tail::open(&rotated(&path))
            && !self.pass(&mut old)?
        {
            return Ok(());
        }
        let follow = self.wanted.follow && !self.wanted.previous;
        let mut heard = self.pass(&mut tail)?;
        if follow {
            self.wanted.tail_lines = None;
            heard = heard && self.flush();
        }
        let mut has_ended = !follow;
        while heard && !has_ended {
            // Asked before the rest is read: what comes after it is of another run.
            has_ended = self.has_ended(&path);
            heard = self.pass(&mut tail)? && !self.to.is_closed();
            if !has_ended {
                std::thread::sleep(POLL);
            }
        }
        if heard && self.continues {
            self.shown.push(b'\n');
        }
        if heard {
            self.flush();
        }
        Ok(())
    }

    /// The run that wrote this log has ended, which is on record after its last words; or another one has begun, or nobody runs the
    /// pod any more.
    fn has_ended(&self, path: &Path) -> bool {
        let is_over = |state: &ContainerState| {
            state.name == self.container && Some(state.attempt) == attempt_of(path) && !state.running()
        };
        newest(&self.logs, false).is_ok_and(|now| now != path)
            || !self.pod.path().exists()
            || self.pod.is_reduced()
            || self.pod.states().is_ok_and(|states| states.iter().any(is_over))
    }

    /// Sends what is there now, or keeps the last lines of it; false when nobody listens any more.
    fn pass(&mut self, tail: &mut Tail) -> io::Result<bool> {
        loop {
            let piece = tail.read()?;
            if piece.is_empty() {
                return Ok(true);
            }
            self.show(&piece);
            if let Some(count) = self.wanted.tail_lines {
                keep_last(&mut self.shown, count);
            } else if !self.flush() {
                return Ok(false);
            }
        }
    }

    fn flush(&mut self) -> bool {
        let piece = std::mem::take(&mut self.shown);
        piece.is_empty() || self.to.blocking_send(piece).is_ok()
    }

    /// Takes in whole records: the wanted lines, without CRI's columns.
    fn show(&mut self, text: &[u8]) {
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let mut columns = line.splitn(4, |b| *b == b' ');
            let (Some(time), Some(stream), Some(flag)) = (columns.next(), columns.next(), columns.next())
            else {
                continue;
            };
            if self
                .wanted
                .stream
                .as_ref()
                .is_some_and(|s| s.as_bytes() != stream)
            {
                continue;
            }
            let since_ms = self.wanted.since_ms;
            if since_ms.is_some_and(|since| time_ms(time).is_some_and(|at| at < since)) {
                continue;
            }
            if self.wanted.timestamps && !self.continues {
                self.shown.extend(time);
                self.shown.push(b' ');
            }
            self.shown.extend(columns.next().unwrap_or_default());
            self.continues = flag.first() == Some(&b'P');
            if !self.continues {
                self.shown.push(b'\n');
            }
        }
    }
}

/// Cuts off all but the last lines.
fn keep_last(text: &mut Vec<u8>, count: u64) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let Some(before) = count.checked_sub(1) else {
        return text.clear();
    };
    let end = text.len() - usize::from(text.last() == Some(&b'\n'));
    let mut ends = text[..end].iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    if let Some((at, _)) = ends.nth(before) {
        text.drain(..=at);
    }
}

/// Reads whole records as they come, a piece at a time, also across a rotation.
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

    /// The next records; empty when there are none for now.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        // A file that was put aside is read to its end first.
        if self.more()? == 0
            && let Some(next) = self.successor()?
            && self.more()? == 0
        {
            self.file = next;
            self.more()?;
        }
        let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(end);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    fn more(&mut self) -> io::Result<usize> {
        (&mut self.file).take(PIECE_BYTES).read_to_end(&mut self.rest)
    }

    /// What is written to now, if that is another file, or this one from its beginning.
    fn successor(&mut self) -> io::Result<Option<File>> {
        let Ok(now) = std::fs::metadata(&self.path) else {
            return Ok(None);
        };
        let own = self.file.metadata()?;
        let same = (now.ino(), now.dev()) == (own.ino(), own.dev());
        if same && now.len() >= self.file.stream_position()? {
            return Ok(None);
        }
        File::open(&self.path).map(Some)
    }
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
        shown_of(Wanted {
            tail_lines,
            since_ms,
            timestamps,
            ..Wanted::default()
        })
    }

    fn shown_of(wanted: Wanted) -> String {
        let dir = tempfile::tempdir().unwrap();
        // Rotated in the middle of a line.
        let (old, new) = LOG.split_at(LOG.find("2026-11-21T09:00:01Z stderr F").unwrap());
        std::fs::write(dir.path().join("0.log.1"), old).unwrap();
        std::fs::write(dir.path().join("0.log"), new).unwrap();
        let (to, mut pieces) = mpsc::channel(PIECES);
        let reader = Reader {
            pod: PodDir::new(dir.path()),
            container: "c".to_owned(),
            logs: dir.path().to_owned(),
            wanted,
            continues: false,
            shown: Vec::new(),
            to,
        };
        reader.run().unwrap();
        let mut text = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            text.extend(piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_joined_cut_and_stamped() {
        assert_eq!(shown(None, None, false), "one\ntwo\nthree  spaced\n");
        assert_eq!(shown(Some(1), None, false), "three  spaced\n");
        assert_eq!(shown(Some(2), None, false), "two\nthree  spaced\n");
        assert_eq!(shown(Some(0), None, false), "");
        assert_eq!(shown(Some(u64::MAX), None, false), shown(None, None, false));
        assert_eq!(shown(None, Some(1_795_251_601_000), true).lines().count(), 2);
        assert!(shown(Some(1), None, true).starts_with("2026-11-21T09:00:02Z three"));
    }

    #[test]
    fn one_stream_is_shown_without_the_other() {
        for (stream, lines) in [("stdout", "one\nthree  spaced\n"), ("stderr", "two\n")] {
            let stream = Some(stream.to_owned());
            let wanted = Wanted {
                stream,
                ..Wanted::default()
            };
            assert_eq!(shown_of(wanted), lines);
        }
    }

    #[test]
    fn a_followed_log_ends_with_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let pod = PodDir::new(dir.path());
        let state = pod.state_file("c");
        std::fs::create_dir_all(state.parent().unwrap()).unwrap();
        let record = |attempt: u32, exit: serde_json::Value| {
            let record = serde_json::json!({"name": "c", "attempt": attempt, "pid": 1, "startedAtMs": 1, "exit": exit});
            std::fs::write(&state, record.to_string()).unwrap();
        };
        let exit = serde_json::json!({"code": 0, "atMs": 2, "signal": null, "reason": null});
        std::fs::write(dir.path().join("1.log"), "2026-11-21T09:00:00Z stdout F one\n").unwrap();
        let (to, mut pieces) = mpsc::channel(PIECES);
        let reader = || Reader {
            pod: pod.clone(),
            container: "c".to_owned(),
            logs: dir.path().to_owned(),
            wanted: Wanted {
                follow: true,
                ..Wanted::default()
            },
            continues: false,
            shown: Vec::new(),
            to: to.clone(),
        };
        let log = dir.path().join("1.log");
        record(0, exit.clone());
        assert!(!reader().has_ended(&log), "that was the run before");
        record(1, serde_json::Value::Null);
        assert!(!reader().has_ended(&log), "it runs");
        record(1, exit);
        reader().run().unwrap();
        assert_eq!(pieces.try_recv().unwrap(), b"one\n");
        std::fs::remove_file(&state).unwrap();
        assert!(!reader().has_ended(&log));
        std::fs::write(dir.path().join("2.log"), "").unwrap();
        assert!(reader().has_ended(&log), "the next one has begun");
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
        assert_eq!(tail.read().unwrap(), b"bc\n");
        assert_eq!(tail.read().unwrap(), b"d\n");
        assert_eq!(tail.read().unwrap(), b"");
        assert_eq!(newest(dir.path(), false).unwrap(), path);
        assert!(newest(dir.path(), true).is_err());
    }
}
