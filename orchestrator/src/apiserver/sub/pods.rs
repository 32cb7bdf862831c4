//! `binding` and `eviction` of pods.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::objects::{DeleteOptions, Target, WriteOptions};
use super::super::rest::Call;
use crate::kinds::at;

fn created() -> Response {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    (StatusCode::CREATED, axum::Json(status)).into_response()
}

/// Names a pod's node; once.
pub(super) async fn bind(call: &Call<'_>, name: &str) -> Result<Response, ApiError> {
    let kind = call.resource.kind;
    let body = call.json()?;
    let node = at(&body, "/target/name").as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        return Err(ApiError::bad_request("target.name must name a node"));
    }
    let change = |old: &Value| {
        if let Some(bound) = at(old, "/spec/nodeName").as_str().filter(|n| !n.is_empty()) {
            return Err(ApiError::conflict(
                kind,
                name,
                &format!("pod is already assigned to node {bound:?}"),
            ));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!(node);
        Ok(new)
    };
    let options = WriteOptions {
        system: true,
        ..call.query.write_options()?
    };
    call.server
        .objects
        .modify(
            kind,
            call.resource.namespace(),
            name,
            Target::Main,
            options,
            change,
        )
        .await?;
    Ok(created())
}

/// Deletes a pod by request of somebody who empties a node. There are no disruption budgets yet.
pub(super) async fn evict(call: &Call<'_>, name: &str) -> Result<Response, ApiError> {
    let body = call.json()?;
    let text = |pointer: &str| at(&body, pointer).as_str().map(str::to_owned);
    let options = DeleteOptions {
        grace_period_seconds: at(&body, "/deleteOptions/gracePeriodSeconds").as_i64(),
        uid: text("/deleteOptions/preconditions/uid"),
        resource_version: text("/deleteOptions/preconditions/resourceVersion"),
        dry_run: call.query.dry_run()? || body["deleteOptions"]["dryRun"] == json!(["All"]),
    };
    call.server
        .objects
        .delete(call.resource.kind, call.resource.namespace(), name, &options)
        .await?;
    Ok(created())
}
