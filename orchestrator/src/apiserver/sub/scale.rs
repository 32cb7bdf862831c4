//! `scale`: autoscaling/v1 Scale over the replicas of a kind.

use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::objects::Target;
use super::super::patch::Patch;
use super::super::rest::{Call, warn};
use crate::kinds::{FieldError, Scale, at, named};

fn view(object: &Value, scale: Scale) -> Value {
    let metadata = &object["metadata"];
    let selector = match at(object, scale.selector) {
        Value::String(text) => text.clone(),
        selector => {
            let pairs = at(selector, "/matchLabels").as_object().into_iter().flatten();
            pairs
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        }
    };
    let mut view = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": at(object, scale.spec_replicas).as_i64().unwrap_or_default()},
        "status": {"replicas": at(object, scale.status_replicas).as_i64().unwrap_or_default(), "selector": selector},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        view["metadata"][field] = metadata[field].clone();
    }
    view
}

/// GET, PUT, PATCH.
pub(super) async fn handle(
    call: &Call<'_>,
    method: &Method,
    name: &str,
    scale: Scale,
) -> Result<Response, ApiError> {
    let kind = call.resource.kind;
    let namespace = call.resource.namespace();
    let objects = &call.server.objects;
    if *method == Method::GET {
        return Ok(axum::Json(view(&objects.get(kind, namespace, name).await?, scale)).into_response());
    }
    // A Scale has no lists: what is a strategic patch elsewhere is a merge patch here.
    let row = named("Namespace").expect("the table has Namespace");
    let patch = match *method {
        Method::PUT => Patch::Merge(call.json()?),
        Method::PATCH => Patch::parse(call.content_type(), &call.body, row, &call.server.limits.objects)?,
        _ => return Err(ApiError::method()),
    };
    let change = |old: &Value| {
        let wanted = patch.apply(&view(old, scale), &call.server.limits.patch)?;
        let replicas = wanted["spec"]["replicas"]
            .as_u64()
            .filter(|n| *n <= i32::MAX as u64)
            .ok_or_else(|| {
                ApiError::invalid(
                    kind,
                    name,
                    &[FieldError::invalid("spec.replicas", "must be a number from 0 on")],
                )
            })?;
        let mut new = old.clone();
        if let Some(slot) = new.pointer_mut(scale.spec_replicas) {
            *slot = json!(replicas);
        }
        let bound = matches!(&patch, Patch::Merge(p) | Patch::Strategic(p) if !at(p, "/metadata/resourceVersion").is_null());
        new["metadata"]["resourceVersion"] = if bound {
            wanted["metadata"]["resourceVersion"].clone()
        } else {
            Value::Null
        };
        Ok(new)
    };
    let options = call.query.write_options()?;
    let done = objects
        .modify(kind, namespace, name, Target::Main, options, change)
        .await?;
    let mut response = (StatusCode::OK, axum::Json(view(&done.object, scale))).into_response();
    warn(&mut response, &done.warnings);
    Ok(response)
}
