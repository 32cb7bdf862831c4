//! What an HTTP/2 connection sends beside its requests: control frames cost work and no request's bounds count them
//! (CVE-2019-9512, -9515, -9518). Seen from below: the headers of frames (RFC 9113, section 4.1) in what is read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// A padded frame that is not longer may be padding alone: its length is a byte, and so is that byte's own place.
const PADDING_BYTES: usize = 256;
/// So much of an answer explains a frame: clients give windows back in pieces of a few KiB, on the stream and on the connection.
const BYTES_A_FRAME: usize = 1 << 10;
/// Answers that explain frames which are still to come: more than clients let be on the way to them.
const UNANSWERED_BYTES: usize = 16 << 20;

/// Control frames that are not explained by answers.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// At once.
    pub burst: u32,
    /// A second, beyond those.
    pub per_second: u32,
}

/// Follows the frames of what comes, in whatever pieces.
struct Frames {
    limits: FrameLimits,
    /// Bytes until the next header.
    ahead: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are here.
    here: usize,
    /// Frames that may come.
    left: u32,
    refilled: Instant,
    /// Bytes of answers that have explained no frame yet.
    answered_bytes: usize,
}

impl Frames {
    fn new(limits: FrameLimits, now: Instant) -> Self {
        Self {
            limits,
            ahead: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            here: 0,
            left: limits.burst,
            refilled: now,
            answered_bytes: 0,
        }
    }

    fn answered(&mut self, bytes: usize) {
        self.answered_bytes = (self.answered_bytes + bytes).min(UNANSWERED_BYTES);
    }

    /// False when it is too much.
    fn come(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        self.refill(now);
        while !bytes.is_empty() {
            if self.ahead > 0 {
                let skipped = self.ahead.min(bytes.len());
                self.ahead -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER_BYTES - self.here).min(bytes.len());
            self.header[self.here..self.here + taken].copy_from_slice(&bytes[..taken]);
            self.here += taken;
            bytes = &bytes[taken..];
            if self.here == HEADER_BYTES {
                self.here = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                self.ahead = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                if !carries(kind, flags, self.ahead) && !self.spend() {
                    return false;
                }
            }
        }
        true
    }

    fn spend(&mut self) -> bool {
        if self.answered_bytes >= BYTES_A_FRAME {
            self.answered_bytes -= BYTES_A_FRAME;
            return true;
        }
        let spent = self.left.checked_sub(1);
        self.left = spent.unwrap_or(0);
        spent.is_some()
    }

    fn refill(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / self.limits.per_second;
        let frames = (now - self.refilled).as_nanos() / each.as_nanos();
        let Ok(frames) = u32::try_from(frames) else { return };
        // What is left of the time counts for the next frame.
        self.refilled += each * frames;
        self.left = self.left.saturating_add(frames).min(self.limits.burst);
    }
}

/// A frame that carries something of a request, or ends it: those are counted as requests.
fn carries(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        HEADERS | CONTINUATION => true,
        DATA if flags & END_STREAM != 0 => true,
        DATA if flags & PADDED != 0 => length > PADDING_BYTES,
        DATA => length > 0,
        _ => false,
    }
}

/// The stream `S` of an HTTP/2 connection; reading fails when too many control frames have come.
pub(super) struct Framed<S> {
    inner: S,
    /// None for HTTP/1.1.
    frames: Option<Frames>,
}

impl<S> Framed<S> {
    /// Over a stream of which nothing has been read; without limits it is left alone.
    pub fn new(inner: S, limits: Option<FrameLimits>) -> Self {
        let frames = limits.map(|limits| Frames::new(limits, Instant::now()));
        Self { inner, frames }
    }

    fn written(&mut self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Some(frames)) = (&poll, &mut self.frames) {
            frames.answered(*bytes);
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let (Poll::Ready(Ok(())), Some(frames)) = (&poll, &mut self.frames)
            && !frames.come(&buffer.filled()[before..], Instant::now())
        {
            return Poll::Ready(Err(io::Error::other("it sends too many HTTP/2 control frames")));
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.written(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        burst: 3,
        per_second: 100,
    };
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![(length >> 16) as u8, (length >> 8) as u8, length as u8];
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        // What looks like a header of a PING is payload.
        bytes.extend([0, 0, 0, PING, 0, 0, 0, 0, 0].iter().cycle().take(length));
        bytes
    }

    fn preface() -> Vec<u8> {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
    }

    fn taken(frames: &[Vec<u8>]) -> bool {
        let bytes = [preface(), frames.concat()].concat();
        Frames::new(LIMITS, Instant::now()).come(&bytes, Instant::now())
    }

    #[test]
    fn control_frames_are_counted_wherever_the_bytes_are_cut() {
        let good = [
            preface(),
            frame(SETTINGS, 0, 18),
            frame(HEADERS, 0, 300),
            frame(CONTINUATION, 4, 70_000),
            frame(WINDOW_UPDATE, 0, 4),
            frame(DATA, 0, 500),
            frame(PING, 1, 8),
            frame(DATA, END_STREAM, 0),
        ]
        .concat();
        let last = frame(200, 0, 5);
        let now = Instant::now();
        for cut in 0..=good.len() {
            let mut frames = Frames::new(LIMITS, now);
            let (one, other) = good.split_at(cut);
            assert!(frames.come(one, now) && frames.come(other, now), "cut at {cut}");
            assert!(!frames.come(&last, now), "cut at {cut}: one too many");
        }
        let mut frames = Frames::new(LIMITS, now);
        assert!(good.iter().all(|byte| frames.come(&[*byte], now)));
        let (start, end) = last.split_at(HEADER_BYTES - 1);
        assert!(frames.come(start, now), "it is not known yet what it is");
        assert!(!frames.come(end, now));
    }

    #[test]
    fn what_carries_nothing_is_counted_whatever_its_kind() {
        for kind in (0..=u8::MAX).filter(|kind| ![DATA, HEADERS, CONTINUATION].contains(kind)) {
            assert!(taken(&vec![frame(kind, 0, 4); 3]), "{kind}");
            assert!(!taken(&vec![frame(kind, 0, 4); 4]), "{kind}");
        }
        assert!(!taken(&vec![frame(DATA, 0, 0); 4]));
        assert!(!taken(&vec![frame(DATA, PADDED, PADDING_BYTES); 4]));
        assert!(taken(&vec![frame(DATA, PADDED, PADDING_BYTES + 1); 100]));
        assert!(taken(&vec![frame(DATA, 0, 1); 100]));
        assert!(taken(&vec![frame(HEADERS, END_STREAM, 30); 100]));
    }

    #[test]
    fn answers_and_time_explain_frames_and_neither_for_ever() {
        let start = Instant::now();
        let mut frames = Frames::new(LIMITS, start);
        // Without payload: what is refused leaves nothing to be skipped.
        let settings = frame(SETTINGS, 0, 0);
        assert!(frames.come(&preface(), start));
        frames.answered(5 * BYTES_A_FRAME);
        assert!((0..8).all(|_| frames.come(&settings, start)));
        assert!(!frames.come(&settings, start));
        let after = |ms| start + Duration::from_millis(ms);
        assert!(!frames.come(&settings, after(9)));
        assert!(frames.come(&settings, after(11)));
        assert!(
            frames.come(&settings, after(20)),
            "what was left of the time counts"
        );
        assert!(!frames.come(&settings, after(20)));
        assert!((0..3).all(|_| frames.come(&settings, after(60_000))));
        assert!(!frames.come(&settings, after(60_000)));
        frames.answered(usize::MAX / 2);
        let explained = UNANSWERED_BYTES / BYTES_A_FRAME;
        assert!((0..explained).all(|_| frames.come(&settings, after(60_000))));
        assert!(!frames.come(&settings, after(60_000)));
    }
}
