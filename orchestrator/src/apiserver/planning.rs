//! What-if and why-not: `POST /gantry/v1/plan`, `GET /gantry/v1/explain/<namespace>/<pod>`.

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Path, Request, State};
use http::Extensions;
use serde_json::Value;

use super::error::ApiError;
use super::share::{Client, Cost, Seat};
use super::{ApiServer, body, measure};

/// The planner as the API server sees it.
#[async_trait]
pub trait Planning: Send + Sync {
    /// The plan if the objects (manifests) were applied, as JSON; 400 for objects that cannot be used.
    async fn dry_run(&self, objects: Vec<Value>) -> Result<Value, ApiError>;

    /// Where a pod is, or why it has no place or is held at its old size; `None` if there is no such pod.
    async fn explain(&self, namespace: &str, name: &str) -> Result<Option<Value>, ApiError>;
}

/// `POST /gantry/v1/plan`: a list of manifests in, the plan out.
pub(super) async fn plan(State(server): State<ApiServer>, request: Request) -> Result<Json<Value>, ApiError> {
    let (parts, body) = request.into_parts();
    let client = Client::of(&parts.extensions);
    let body = body::read(&parts, body, &server.limits).await?;
    let seat = body.seated(server.share.enter(Cost::Heavy, &client)).await?;
    measure::scan(&body.bytes, &server.limits.objects).map_err(|e| ApiError::too_large(e.to_string()))?;
    let objects: Vec<Value> = serde_json::from_slice(&body.bytes)
        .map_err(|e| ApiError::bad_request(format!("the body must be a list of objects: {e}")))?;
    let planning = server.planning;
    with(seat, async move { planning.dry_run(objects).await.map(Json) }).await
}

/// `GET /gantry/v1/explain/<namespace>/<pod>`: the explanation, or 404.
pub(super) async fn explain(
    State(server): State<ApiServer>,
    Path((namespace, name)): Path<(String, String)>,
    extensions: Extensions,
) -> Result<Json<Value>, ApiError> {
    let seat = server.share.enter(Cost::Heavy, &Client::of(&extensions)).await?;
    let kind = crate::kinds::named("Pod").expect("the table has Pod");
    let planning = server.planning;
    let work = async move {
        let explanation = planning.explain(&namespace, &name).await?;
        explanation
            .map(Json)
            .ok_or_else(|| ApiError::not_found(kind, &name))
    };
    with(seat, work).await
}

/// Does what goes on without the client with the seat that it was given: a client that goes frees none for the next.
async fn with<T: Send + 'static>(
    seat: Seat,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let seated = tokio::spawn(async move {
        let _seat = seat;
        work.await
    });
    seated
        .await
        .unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}
