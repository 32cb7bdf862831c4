//! `POST /gantry/v1/certificates/reload`: `gantry certs revoke` has written what is not trusted any more.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::ApiServer;
use super::error::ApiError;

/// Answers once connections of whoever is revoked are ending.
pub(super) async fn reload(State(server): State<ApiServer>) -> Result<Json<Value>, ApiError> {
    let pki = server.pki.clone();
    let done = tokio::task::spawn_blocking(move || pki.reload()).await;
    match done {
        Ok(Ok(())) => Ok(Json(json!({}))),
        Ok(Err(error)) => Err(ApiError::internal(format!("certificates: {error}"))),
        Err(error) => Err(ApiError::internal(format!("certificates: {error}"))),
    }
}
