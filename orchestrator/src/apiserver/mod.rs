//! The API: Kubernetes' conventions over the table of kinds.

mod accept;
mod audit;
mod auth;
mod body;
mod certificates;
mod connection;
mod discovery;
mod error;
mod frames;
mod held;
mod limits;
mod list;
mod listener;
mod looked;
mod measure;
mod objects;
mod openapi;
mod openapi_v2;
mod panics;
mod patch;
mod path;
mod planning;
mod protobuf;
mod query;
mod rest;
mod selector;
mod share;
mod snapshot;
mod stall;
mod strangers;
mod sub;
mod table;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use tokio_util::sync::CancellationToken;

pub use auth::{Identity, MASTERS, NODE_PREFIX, NODES};
pub use error::ApiError;
pub use frames::FrameLimits;
pub use limits::{ArrivingLimits, ConnectionLimits, Limits, ObjectLimits, PatchLimits, ShareLimits};
pub use listener::{ListenError, Listener};
pub(crate) use objects::now;
pub use objects::{DeleteOptions, Deleted, FieldValidation, Objects, Target, WriteOptions, Written};
pub use planning::Planning;
pub use selector::Selector;
pub use share::Client;

use crate::link::{LinkHandle, NodeLink};
use crate::pki::Pki;
use share::Share;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    /// Objects by the rules.
    pub objects: Objects,
    /// The agents, for logs and commands.
    pub link: LinkHandle,
    /// The planner, for what-ifs.
    pub planning: Arc<dyn Planning>,
    /// Where snapshots of the store are put.
    pub data_dir: std::path::PathBuf,
    /// The certificates.
    pub pki: Arc<Pki>,
    /// Ends watches, logs and commands.
    pub shutdown: CancellationToken,
    limits: Arc<Limits>,
    share: Share,
}

impl ApiServer {
    /// A server over its parts.
    pub fn new(
        objects: Objects,
        link: LinkHandle,
        planning: Arc<dyn Planning>,
        data_dir: std::path::PathBuf,
        pki: Arc<Pki>,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            objects,
            link,
            planning,
            data_dir,
            pki,
            shutdown,
            share: Share::new(limits.share),
            limits: Arc::new(limits),
        }
    }

    /// All routes: the API for administrators, the gRPC service for agents.
    pub fn router(self) -> Router {
        let audit = audit::Audit::new(&self.data_dir);
        let grpc = tonic::service::Routes::new(NodeLink::new(self.link.clone()).into_service());
        Router::new()
            .route("/version", get(discovery::version))
            .route("/healthz", get(|| async { "ok" }))
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(|| async { "ok" }))
            .route("/api", get(discovery::api))
            .route("/api/v1", get(discovery::resource_list))
            .route("/apis", get(discovery::apis))
            .route("/apis/{group}", get(discovery::api_group))
            .route("/apis/{group}/{version}", get(discovery::resource_list))
            .route("/openapi/v2", get(openapi_v2::document))
            .route("/openapi/v3", get(openapi::index))
            .route("/openapi/v3/api/{version}", get(openapi::document))
            .route("/openapi/v3/apis/{group}/{version}", get(openapi::document))
            .route("/gantry/v1/snapshot", post(snapshot::snapshot))
            .route("/gantry/v1/certificates/reload", post(certificates::reload))
            .route("/gantry/v1/plan", post(planning::plan))
            .route("/gantry/v1/explain/{namespace}/{pod}", get(planning::explain))
            .route("/api/v1/{*rest}", any(rest::resource))
            .route("/apis/{group}/{version}/{*rest}", any(rest::resource))
            .with_state(self)
            .fallback(|| async { ApiError::no_such_path() })
            .merge(grpc.prepare().into_axum_router().reset_fallback())
            .layer(from_fn(panics::answer))
            .layer(from_fn(auth::authorize))
            .layer(from_fn_with_state(audit, audit::record))
    }
}
