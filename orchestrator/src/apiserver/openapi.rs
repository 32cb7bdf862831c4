//! OpenAPI v3, enough for kubectl: paths with their query parameters, and a schema a kind.

use axum::Json;
use axum::extract::RawPathParams;
use serde_json::{Map, Value, json};

use super::discovery::group_versions;
use super::error::ApiError;
use crate::kinds::{KINDS, Kind};

/// Query parameters of a write.
pub(super) const PARAMETERS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];

fn base(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `GET /openapi/v3`.
pub(super) async fn index() -> Json<Value> {
    let paths: Map<String, Value> = group_versions()
        .into_iter()
        .map(|(group, version)| {
            let base = base(group, version);
            let url = json!({"serverRelativeURL": format!("/openapi/v3/{base}?hash={}", env!("CARGO_PKG_VERSION"))});
            (base, url)
        })
        .collect();
    Json(json!({"paths": paths}))
}

/// Where objects of a kind are.
pub(super) fn collection(kind: &Kind) -> String {
    let middle = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    format!("/{}{middle}/{}", base(kind.group, kind.version), kind.plural)
}

fn parameters() -> Value {
    let parameter =
        |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    PARAMETERS.iter().map(parameter).collect()
}

fn schema_name(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group };
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), kind.version, kind.kind)
}

fn operation(kind: &Kind, action: &str, bodies: &[&str]) -> Value {
    let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(kind))});
    let mut operation = json!({
        "operationId": format!("{action}{}", kind.kind), "parameters": parameters(),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
    });
    if !bodies.is_empty() {
        let content: Map<String, Value> = bodies
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": {"type": "object"}})))
            .collect();
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

fn schema(kind: &Kind) -> Value {
    let object = |description: &str| json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true});
    let mut properties = json!({
        "apiVersion": {"type": "string", "description": "Group and version."},
        "kind": {"type": "string", "description": "The kind's name."},
        "metadata": object("Name, namespace, labels, versions."),
        "spec": object("What is wanted."),
    });
    if kind.status {
        properties["status"] = object("What is.");
    }
    json!({
        "type": "object", "description": format!("{} ({})", kind.kind, kind.api_version()), "properties": properties,
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.kind}],
    })
}

/// `GET /openapi/v3/api/v1` and `GET /openapi/v3/apis/<group>/<version>`.
pub(super) async fn document(parameters: RawPathParams) -> Result<Json<Value>, ApiError> {
    let find = |name: &str| parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| v);
    let (group, version) = (find("group").unwrap_or_default(), find("version").unwrap_or("v1"));
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in KINDS.iter().filter(|k| k.group == group && k.version == version) {
        let collection = collection(kind);
        // No strategic merge patch here: its schemas would have to carry the merge keys, which clients know by themselves.
        let patches = ["application/json-patch+json", "application/merge-patch+json"];
        let json = ["application/json"];
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation(kind, "get", &[]), "put": operation(kind, "put", &json),
                "patch": operation(kind, "patch", &patches), "delete": operation(kind, "delete", &[]),
            }),
        );
        paths.insert(
            collection,
            json!({"get": operation(kind, "list", &[]), "post": operation(kind, "post", &json)}),
        );
        schemas.insert(schema_name(kind), schema(kind));
    }
    if paths.is_empty() {
        return Err(ApiError::no_such_path());
    }
    Ok(Json(json!({
        "openapi": "3.0.0", "info": {"title": "Gantry", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas},
    })))
}
