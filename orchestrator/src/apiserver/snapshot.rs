//! `POST /gantry/v1/snapshot`: the store as it is now, in a file of the data directory.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::ApiServer;
use super::error::ApiError;

/// In the data directory, which only its owner reads. `gantry backup` takes it from there.
const FILE: &str = "snapshot.redb";

/// Answers with the file's name.
pub(super) async fn snapshot(State(server): State<ApiServer>) -> Result<Json<Value>, ApiError> {
    server
        .objects
        .store()
        .snapshot(&server.data_dir.join(FILE))
        .await?;
    Ok(Json(json!({"file": FILE})))
}
