//! `binding` and `eviction` of pods.

use axum::response::{IntoResponse, Response};
use gantry_api::{DrainState, PodExtras, labels};
use gantry_catalog::DrainMethod;
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

/// Deletes a pod by request of somebody who empties a node. One that knows how to drain is marked instead, and the answer is
/// 429, which `kubectl drain` asks again after: until its sessions have ended and the core has stopped it. There are no
/// disruption budgets yet.
pub(super) async fn evict(call: &Call<'_>, name: &str) -> Result<Response, ApiError> {
    let body = call.json()?;
    let text = |pointer: &str| at(&body, pointer).as_str().map(str::to_owned);
    let options = DeleteOptions {
        grace_period_seconds: at(&body, "/deleteOptions/gracePeriodSeconds").as_i64(),
        uid: text("/deleteOptions/preconditions/uid"),
        resource_version: text("/deleteOptions/preconditions/resourceVersion"),
        dry_run: call.query.dry_run()? || body["deleteOptions"]["dryRun"] == json!(["All"]),
    };
    let (objects, kind, namespace) = (
        &call.server.objects,
        call.resource.kind,
        call.resource.namespace(),
    );
    if drains(&objects.get(kind, namespace, name).await?) {
        mark_evicted(call, name, &options).await?;
        if options.dry_run {
            return Ok(created());
        }
        let message = format!(
            "pod {name:?} is replaced where it can be, then drains: its sessions end first, then it stops; ask again, or delete the pod to cut them off"
        );
        return Err(ApiError::too_many_requests(message));
    }
    objects.delete(kind, namespace, name, &options).await?;
    Ok(created())
}

/// It runs, or may, and has a way to let go of its sessions.
fn drains(pod: &Value) -> bool {
    let extras = at(pod, "/metadata/annotations").get(labels::EXTRAS);
    let extras = extras.and_then(|text| serde_json::from_str::<PodExtras>(text.as_str()?).ok());
    let phase = at(pod, "/status/phase").as_str().unwrap_or_default();
    extras.is_some_and(|e| e.drain.method != DrainMethod::None)
        && at(pod, "/metadata/deletionTimestamp").is_null()
        && !at(pod, "/spec/nodeName").is_null()
        && !["Succeeded", "Failed"].contains(&phase)
}

fn is_of_a_function(pod: &Value) -> bool {
    let owners = at(pod, "/metadata/ownerReferences").as_array();
    owners
        .into_iter()
        .flatten()
        .any(|o| o["controller"] == true && o["kind"] == "NetworkFunction")
}

/// Marks the pod for the core: a function replaces it before it drains; any other pod begins to drain.
async fn mark_evicted(call: &Call<'_>, name: &str, preconditions: &DeleteOptions) -> Result<(), ApiError> {
    let change = |old: &Value| {
        let mut new = old.clone();
        let (annotation, value) = if is_of_a_function(old) {
            (labels::EVICT, json!("true"))
        } else {
            let state = serde_json::to_string(&DrainState::default());
            (labels::DRAIN, json!(state.expect("plain data has a JSON form")))
        };
        let annotations = &mut new["metadata"]["annotations"];
        if annotations[annotation].is_null() {
            annotations[annotation] = value;
        }
        // The write itself compares these.
        let fields = [
            ("uid", &preconditions.uid),
            ("resourceVersion", &preconditions.resource_version),
        ];
        for (field, wanted) in fields {
            if let Some(wanted) = wanted {
                new["metadata"][field] = json!(wanted);
            }
        }
        Ok(new)
    };
    let options = WriteOptions {
        dry_run: preconditions.dry_run,
        system: true,
        ..Default::default()
    };
    let (kind, namespace) = (call.resource.kind, call.resource.namespace());
    let objects = &call.server.objects;
    objects
        .modify(kind, namespace, name, Target::Main, options, change)
        .await?;
    Ok(())
}
