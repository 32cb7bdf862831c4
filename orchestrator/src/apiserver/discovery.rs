//! What there is: `/api`, `/apis`, `/version`, and the resources of each group and version.

use axum::Json;
use axum::extract::Path;
use axum::extract::RawPathParams;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::kinds::{KINDS, Kind};

/// Kubernetes version whose conventions are followed.
const KUBERNETES: (&str, &str) = ("1", "36");
const ALL_VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Group versions of the table, in its order.
pub(super) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for kind in KINDS {
        if !found.contains(&(kind.group, kind.version)) {
            found.push((kind.group, kind.version));
        }
    }
    found
}

/// `GET /version`.
pub(super) async fn version() -> Json<Value> {
    let (major, minor) = KUBERNETES;
    Json(json!({
        "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+gantry-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

/// `GET /api`.
pub(super) async fn api() -> Json<Value> {
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

fn group(name: &str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| *group == name)
        .map(|(group, version)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `GET /apis`.
pub(super) async fn apis() -> Json<Value> {
    let mut names: Vec<&str> = group_versions()
        .into_iter()
        .map(|(group, _)| group)
        .filter(|g| !g.is_empty())
        .collect();
    names.dedup();
    let groups: Vec<Value> = names.into_iter().map(group).collect();
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `GET /apis/<group>`.
pub(super) async fn api_group(Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    if name.is_empty() || !KINDS.iter().any(|k| k.group == name) {
        return Err(ApiError::no_such_path());
    }
    let mut found = group(&name);
    found["kind"] = json!("APIGroup");
    found["apiVersion"] = json!("v1");
    Ok(Json(found))
}

fn resources(kind: &Kind) -> Vec<Value> {
    let mut found = vec![json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": ALL_VERBS, "shortNames": kind.short, "categories": kind.categories,
    })];
    let mut sub = |name: &str, group: &str, version: &str, kind_of: &str, verbs: &[&str]| {
        let mut entry = json!({
            "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
            "kind": kind_of, "verbs": verbs,
        });
        if (group, version) != (kind.group, kind.version) {
            entry["group"] = json!(group);
            entry["version"] = json!(version);
        }
        found.push(entry);
    };
    if kind.status {
        sub(
            "status",
            kind.group,
            kind.version,
            kind.kind,
            &["get", "patch", "update"],
        );
    }
    if kind.scale.is_some() {
        sub("scale", "autoscaling", "v1", "Scale", &["get", "patch", "update"]);
    }
    for s in kind.subresources {
        sub(s.name, s.group_version.0, s.group_version.1, s.kind, s.verbs);
    }
    found
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`.
pub(super) async fn resource_list(parameters: RawPathParams) -> Result<Json<Value>, ApiError> {
    let find = |name: &str| parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| v);
    let (group, version) = (find("group").unwrap_or_default(), find("version").unwrap_or("v1"));
    let kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|k| k.group == group && k.version == version)
        .collect();
    let first = kinds.first().ok_or_else(ApiError::no_such_path)?;
    let list: Vec<Value> = kinds.iter().flat_map(|kind| resources(kind)).collect();
    Ok(Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": list,
    })))
}
