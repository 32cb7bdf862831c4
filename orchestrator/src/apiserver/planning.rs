//! What-if and why-not: `POST /gantry/v1/plan`, `GET /gantry/v1/explain/<namespace>/<pod>`.

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;

use super::ApiServer;
use super::error::ApiError;

/// The planner as the API server sees it.
#[async_trait]
pub trait Planning: Send + Sync {
    /// The plan if the objects (manifests) were applied, as JSON; 400 for objects that cannot be used.
    async fn dry_run(&self, objects: Vec<Value>) -> Result<Value, ApiError>;

    /// Where a pod is, or why it has no place or is held at its old size; `None` if there is no such pod.
    async fn explain(&self, namespace: &str, name: &str) -> Option<Value>;
}

/// `POST /gantry/v1/plan`: a list of manifests in, the plan out.
pub(super) async fn plan(
    State(server): State<ApiServer>,
    body: axum::body::Bytes,
) -> Result<Json<Value>, ApiError> {
    let objects: Vec<Value> = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("the body must be a list of objects: {e}")))?;
    server.planning.dry_run(objects).await.map(Json)
}

/// `GET /gantry/v1/explain/<namespace>/<pod>`: the explanation, or 404.
pub(super) async fn explain(
    State(server): State<ApiServer>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let kind = crate::kinds::named("Pod").expect("the table has Pod");
    let explanation = server.planning.explain(&namespace, &name).await;
    explanation
        .map(Json)
        .ok_or_else(|| ApiError::not_found(kind, &name))
}
