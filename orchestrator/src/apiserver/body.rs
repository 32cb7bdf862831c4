//! Request bodies: read whole, within bounds of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use tokio::time::Instant;

use super::error::ApiError;
use super::limits::Limits;
use super::share::{Arriving, Seat};

/// What is thrown away of a body that is too large, so that its sender comes to read the answer.
const DRAIN_BYTES: usize = 64 << 20;
/// For so long.
const DRAIN: Duration = Duration::from_secs(10);

/// A body, and its part of the room.
pub(super) struct Read {
    pub bytes: Bytes,
    arriving: Arc<Arriving>,
}

impl Read {
    /// Waits for a seat, and gives up when others need the room meanwhile.
    pub async fn seated(&self, seat: impl Future<Output = Result<Seat, ApiError>>) -> Result<Seat, ApiError> {
        // Cancel-safe: a seat that comes for nobody is passed on.
        let seat = tokio::select! {
            seat = seat => seat?,
            error = self.arriving.pushed_out() => return Err(error),
        };
        self.arriving.settle();
        Ok(seat)
    }
}

/// Reads a body. 413 if it is too large: at once, while the rest is thrown away; 408 if it is too slow, 429 without room.
pub(super) async fn read(parts: &Parts, body: Body, limits: &Limits) -> Result<Read, ApiError> {
    let arriving = Arriving::of(&parts.extensions)?;
    let declared = parts.headers.get(CONTENT_LENGTH);
    let declared = declared.and_then(|v| v.to_str().ok()?.parse().ok());
    let mut stream = body.into_data_stream();
    if declared.is_some_and(|length: usize| length > limits.body_bytes) {
        return Err(too_large(stream, arriving, limits));
    }
    let deadline = Instant::now() + limits.body_time;
    let mut bytes = Vec::new();
    loop {
        let until = deadline.min(Instant::now() + limits.body_pause);
        // Cancel-safe: a stream.
        let next = tokio::select! {
            next = tokio::time::timeout_at(until, stream.next()) => next,
            error = arriving.pushed_out() => return Err(error),
        };
        let chunk = match next {
            Ok(None) => break,
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => {
                return Err(ApiError::bad_request(format!("the body is cut off: {error}")));
            }
            Err(_) if until < deadline => {
                let message = format!("nothing of the body came for {:?}", limits.body_pause);
                return Err(ApiError::too_slow(message));
            }
            Err(_) => {
                let message = format!("the body was not here after {:?}", limits.body_time);
                return Err(ApiError::too_slow(message));
            }
        };
        if bytes.len() + chunk.len() > limits.body_bytes {
            return Err(too_large(stream, arriving, limits));
        }
        let length = bytes.len() + chunk.len();
        if length > bytes.capacity() {
            let capacity = length.max(2 * bytes.capacity());
            if let Err(error) = arriving.grow(capacity - bytes.capacity()) {
                drain(stream, arriving);
                return Err(error);
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Read {
        bytes: bytes.into(),
        arriving,
    })
}

fn too_large(stream: BodyDataStream, arriving: Arc<Arriving>, limits: &Limits) -> ApiError {
    drain(stream, arriving);
    ApiError::too_large(format!(
        "Request entity too large: limit is {}",
        limits.body_bytes
    ))
}

/// Reads on without keeping anything: who is cut off while sending never sees the answer. It counts as under way meanwhile.
fn drain(mut stream: BodyDataStream, arriving: Arc<Arriving>) {
    tokio::spawn(async move {
        let all = async {
            let mut left = DRAIN_BYTES;
            while let Some(Ok(chunk)) = stream.next().await {
                let Some(rest) = left.checked_sub(chunk.len()) else {
                    return;
                };
                left = rest;
            }
        };
        // Cancel-safe: nothing is kept.
        tokio::select! {
            _ = tokio::time::timeout(DRAIN, all) => {}
            _ = arriving.pushed_out() => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::limits::ArrivingLimits;
    use super::super::share::Arrivals;
    use super::*;

    fn limits() -> Limits {
        Limits {
            body_bytes: 1 << 20,
            body_time: Duration::from_millis(200),
            body_pause: Duration::from_millis(50),
            ..Limits::default()
        }
    }

    fn arrivals() -> Arrivals {
        Arrivals::new(ArrivingLimits {
            per_user_bytes: 3 << 19,
            total_bytes: 2 << 20,
        })
    }

    /// A request's head, of this user.
    fn head(arrivals: &Arrivals, user: &str) -> Parts {
        let mut request = http::Request::new(());
        let arriving = arrivals.begin(user, request.headers()).unwrap();
        request.extensions_mut().insert(Arc::new(arriving));
        request.into_parts().0
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_time_and_together() {
        let (limits, arrivals) = (limits(), arrivals());
        let read = async |user: &str, body: Body| {
            let read = super::read(&head(&arrivals, user), body, &limits).await;
            read.map_err(|e| e.code.as_u16())
        };
        let large = || Body::from(vec![b'x'; 1 << 20]);
        let first = read("a", large()).await.unwrap();
        assert_eq!(first.bytes.len(), 1 << 20);
        assert_eq!(read("a", large()).await.err(), Some(429));
        assert!(read("a", Body::from("small")).await.is_ok());
        // Where there is no room, whoever has more than another gives it back.
        let half = || Body::from(vec![b'x'; 1 << 19]);
        let (second, third) = (read("b", half()).await, read("c", half()).await);
        assert!(second.is_ok() && third.is_ok());
        let seat = Box::pin(std::future::pending());
        assert_eq!(first.seated(seat).await.err().unwrap().code.as_u16(), 429);
        drop((first, second, third));
        assert!(read("a", large()).await.is_ok());
        assert_eq!(
            read("a", Body::from(vec![b'x'; (1 << 20) + 1])).await.err(),
            Some(413)
        );
    }

    #[tokio::test]
    async fn who_sends_too_slowly_or_nothing_any_more_is_not_waited_for() {
        let (limits, arrivals) = (limits(), arrivals());
        let read = async |body: Body| {
            let read = super::read(&head(&arrivals, "a"), body, &limits).await;
            read.map(|_| ()).map_err(|e| (e.code.as_u16(), e.message))
        };
        let piece = || Ok::<_, std::io::Error>(Bytes::from_static(b"x"));
        let stops = futures::stream::once(async move { piece() }).chain(futures::stream::pending());
        let (code, why) = read(Body::from_stream(stops)).await.unwrap_err();
        assert_eq!((code, why.as_str()), (408, "nothing of the body came for 50ms"));
        let crawls = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let (code, why) = read(Body::from_stream(crawls)).await.unwrap_err();
        assert_eq!((code, why.as_str()), (408, "the body was not here after 200ms"));
    }
}
