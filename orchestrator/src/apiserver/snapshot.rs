//! `POST /gantry/v1/snapshot`: the store as it is now, in a file of the data directory.

use axum::Json;
use axum::extract::State;
use http::Extensions;
use serde_json::{Value, json};

use super::ApiServer;
use super::error::ApiError;
use super::share::{Client, Cost};

/// In the data directory, which only its owner reads. `gantry backup` takes it from there.
const FILE: &str = "snapshot.redb";

/// Answers with the file's name.
pub(super) async fn snapshot(
    State(server): State<ApiServer>,
    extensions: Extensions,
) -> Result<Json<Value>, ApiError> {
    let _seat = server.share.enter(Cost::Heavy, &Client::of(&extensions)).await?;
    server
        .objects
        .store()
        .snapshot(&server.data_dir.join(FILE))
        .await?;
    Ok(Json(json!({"file": FILE})))
}
