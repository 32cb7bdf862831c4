//! `usage` of a node: what its pods take, as its agent reads it at this moment.

use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use gantry_nodeagent_api::{SessionFrame, SessionKind};
use http::header::CONTENT_TYPE;

use super::super::error::ApiError;
use super::super::rest::Call;
use super::log::open;

/// A page for every pod that a node may have.
const MOST_BYTES: usize = 4 << 20;

pub(super) async fn usage(call: &Call<'_>, node: &str) -> Result<Response, ApiError> {
    // A node that is not there is another error than one that does not answer.
    let objects = &call.server.objects;
    objects.get(call.resource.kind, "", node).await?;
    let (mut session, _counted) = open(call.server, &call.client, node, SessionKind::Usage).await?;
    let broken = |why: &str| ApiError::unavailable(format!("node {node} does not tell its usage: {why}"));
    let mut json = BytesMut::new();
    loop {
        match session.output.recv().await {
            Some(SessionFrame::Stdout(piece)) if json.len() + piece.len() <= MOST_BYTES => {
                json.extend_from_slice(&piece);
            }
            Some(SessionFrame::Stdout(_)) => return Err(broken("it is too much")),
            Some(SessionFrame::Exit(0)) => break,
            Some(SessionFrame::Error(why)) => return Err(broken(&why)),
            Some(_) | None => return Err(broken("the session broke off")),
        }
    }
    Ok(([(CONTENT_TYPE, "application/json")], json.freeze()).into_response())
}
