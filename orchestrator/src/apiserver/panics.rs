//! A panic in a handler (a defect) is the answer to its request, and nobody else's.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::error::ApiError;

/// 500 instead of a connection that ends without a word, with all requests that are on it.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // What a handler shares with others is behind locks that do not mind (`PoisonError::into_inner`) and holds whole values.
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, "a request ended in a panic, which is a defect of Gantry");
        let message = "the server failed over this request, which is a defect of Gantry: its log says where";
        ApiError::internal(message).into_response()
    })
}
