//! Who may do what: administrators all of the API, nodes their own service, nobody else anything.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Extensions;
use tokio::sync::watch;

use super::error::ApiError;
use crate::link::NodeIdentity;
use crate::pki::Revoked;

/// Group of administrators.
pub const MASTERS: &str = "system:masters";
/// Group of node agents.
pub const NODES: &str = "system:nodes";
/// What comes before a node's name in its user name.
pub const NODE_PREFIX: &str = "system:node:";
/// Path of the node agents' service.
pub(super) const NODE_SERVICE: &str = "/gantry.node.v1.NodeService/";

/// The subject of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// CN.
    pub user: String,
    /// Os.
    pub groups: Vec<String>,
}

impl Identity {
    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node, if it is one.
    pub fn node(&self) -> Option<NodeIdentity> {
        let name = self.user.strip_prefix(NODE_PREFIX)?;
        self.is_in(NODES).then(|| NodeIdentity(name.to_owned()))
    }
}

/// Whether a client's certificate still counts, for what outlives the requests of its connection; put into a request's
/// extensions by the listener.
#[derive(Clone)]
pub(super) struct Admission {
    serial: Arc<[u8]>,
    revoked: watch::Receiver<Revoked>,
}

impl Admission {
    /// Of a certificate by its serial number.
    pub fn new(serial: Vec<u8>, revoked: watch::Receiver<Revoked>) -> Self {
        let serial = serial.into();
        Self { serial, revoked }
    }

    /// Whether the certificate is revoked now.
    pub fn is_withdrawn(&self) -> bool {
        self.revoked.borrow().has(&self.serial)
    }

    /// Of a request. Without a listener (never in a server) there is none.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().cloned()
    }
}

/// Returns when the certificate is revoked.
pub(super) async fn withdrawn(admission: Option<Admission>) {
    if let Some(Admission { serial, mut revoked }) = admission
        && revoked.wait_for(|revoked| revoked.has(&serial)).await.is_ok()
    {
        return;
    }
    // Nobody revokes anything any more.
    std::future::pending().await
}

/// Answers 401 to everything: to whoever shows a certificate that is revoked.
pub(super) async fn refuse(request: Request) -> Response {
    if request.uri().path().starts_with(NODE_SERVICE) {
        return tonic::Status::unauthenticated("the node's certificate is revoked").into_http();
    }
    ApiError::revoked().into_response()
}

/// Lets a request pass or answers 403.
pub(super) async fn authorize(mut request: Request, next: Next) -> Response {
    let Some(identity) = request.extensions().get::<Identity>().cloned() else {
        return ApiError::forbidden("there is no client certificate").into_response();
    };
    if request.uri().path().starts_with(NODE_SERVICE) {
        if let Some(node) = identity.node() {
            request.extensions_mut().insert(node);
            return next.run(request).await;
        }
        let message = format!("the client certificate of {:?} is not a node's", identity.user);
        return tonic::Status::permission_denied(message).into_http();
    } else if identity.is_in(MASTERS) {
        return next.run(request).await;
    }
    let message = format!(
        "User {:?} cannot {} path {:?}",
        identity.user,
        request.method(),
        request.uri().path()
    );
    ApiError::forbidden(message).into_response()
}
