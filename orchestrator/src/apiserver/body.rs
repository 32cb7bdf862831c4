//! Request bodies: read whole, within bounds of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::ApiError;
use super::limits::Limits;

/// Bodies up to this do not count for the memory of all, so that small requests always pass.
const SMALL_BYTES: usize = 64 << 10;
/// What is thrown away of a body that is too large, so that its sender comes to read the answer.
const DRAIN_BYTES: usize = 64 << 20;
/// For so long.
const DRAIN: Duration = Duration::from_secs(10);

/// Memory for large bodies, in pieces of [`SMALL_BYTES`]. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Semaphore::new(limits.bodies_bytes / SMALL_BYTES)))
    }
}

/// A body, and its part of the room.
pub(super) struct Read {
    pub bytes: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
}

/// Reads a body. 413 if it is too large: at once, while the rest is thrown away; 408 if it is too slow, 429 without room.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    room: &Room,
) -> Result<Read, ApiError> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let mut stream = body.into_data_stream();
    if declared.is_some_and(|length: usize| length > limits.body_bytes) {
        return Err(too_large(stream, limits));
    }
    let deadline = Instant::now() + limits.body_time;
    let (mut bytes, mut held) = (BytesMut::new(), Vec::new());
    loop {
        let chunk = match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => {
                return Err(ApiError::bad_request(format!("the body is cut off: {error}")));
            }
            Err(_) => {
                let message = format!("the body was not here after {} s", limits.body_time.as_secs());
                return Err(ApiError::too_slow(message));
            }
        };
        if bytes.len() + chunk.len() > limits.body_bytes {
            return Err(too_large(stream, limits));
        }
        bytes.extend_from_slice(&chunk);
        while held.len() < bytes.len() / SMALL_BYTES {
            let Ok(permit) = room.0.clone().try_acquire_owned() else {
                drain(stream);
                return Err(ApiError {
                    retry_after_s: Some(1),
                    ..ApiError::too_many_requests(
                        "too many large requests are under way, please try again later",
                    )
                });
            };
            held.push(permit);
        }
    }
    Ok(Read {
        bytes: bytes.freeze(),
        _room: held,
    })
}

fn too_large(stream: BodyDataStream, limits: &Limits) -> ApiError {
    drain(stream);
    ApiError::too_large(format!(
        "Request entity too large: limit is {}",
        limits.body_bytes
    ))
}

/// Reads on without keeping anything: who is cut off while sending never sees the answer.
fn drain(mut stream: BodyDataStream) {
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
        let _ = tokio::time::timeout(DRAIN, all).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            body_bytes: 1 << 20,
            bodies_bytes: 1 << 20,
            body_time: Duration::from_millis(50),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_time_and_together() {
        let (limits, room) = (limits(), Room::new(&limits()));
        let read = async |body: Body| {
            let read = super::read(&HeaderMap::new(), body, &limits, &room).await;
            read.map_err(|e| e.code.as_u16())
        };
        let large = || Body::from(vec![b'x'; 1 << 20]);
        let first = read(large()).await.unwrap();
        assert_eq!(first.bytes.len(), 1 << 20);
        assert_eq!(read(large()).await.err(), Some(429));
        assert!(read(Body::from("small")).await.is_ok(), "always");
        drop(first);
        assert!(read(large()).await.is_ok());
        assert_eq!(read(Body::from(vec![b'x'; (1 << 20) + 1])).await.err(), Some(413));
        let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(read(Body::from_stream(endless)).await.err(), Some(408));
    }
}
