//! `log`: a container's log from its node.

mod options;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use gantry_nodeagent_api::{SessionFrame, SessionKind};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::Value;
use time::OffsetDateTime;

use super::super::ApiServer;
use super::super::error::ApiError;
use super::super::path::Resource;
use super::super::rest::Call;
use super::super::share::{Client, Counted};
use crate::kinds::at;
use crate::link::Session;
use options::{LogQuery, Part};

/// Reason of a pod that took too much of its node's disk, as Kubernetes calls it.
const EVICTED: &str = "Evicted";

/// Where a pod runs.
pub(super) struct Place {
    pub node: String,
    pub uid: String,
    pub container: String,
}

/// Node, uid and container of a pod; the container may be left out if there is one, or an annotation says which.
pub(super) async fn place(
    server: &ApiServer,
    resource: &Resource<'_>,
    name: &str,
    container: &str,
) -> Result<Place, ApiError> {
    let pod = server
        .objects
        .get(resource.kind, resource.namespace(), name)
        .await?;
    let names: Vec<&str> = at(&pod, "/spec/containers")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    let default = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    let container = match (container, default, names.as_slice()) {
        ("", Some(default), _) => default.to_owned(),
        ("", None, [only]) => (*only).to_owned(),
        ("", None, _) => {
            let message =
                format!("a container name must be specified for pod {name}, choose one of: {names:?}");
            return Err(ApiError::bad_request(message));
        }
        (named, _, _) => named.to_owned(),
    };
    let init = at(&pod, "/spec/initContainers").as_array().into_iter().flatten();
    let mut init = init.filter_map(|c| c["name"].as_str());
    if !names.contains(&container.as_str()) && !init.any(|name| name == container) {
        return Err(ApiError::bad_request(format!(
            "container {container} is not valid for pod {name}"
        )));
    }
    located(&pod, name, container)
}

/// Node and uid of a pod, whatever containers it has.
pub(super) async fn place_of_pod(server: &ApiServer, resource: &Resource<'_>) -> Result<Place, ApiError> {
    let name = resource.name.ok_or_else(ApiError::no_such_path)?;
    let pod = server
        .objects
        .get(resource.kind, resource.namespace(), name)
        .await?;
    located(&pod, name, String::new())
}

fn located(pod: &Value, name: &str, container: String) -> Result<Place, ApiError> {
    let text = |pointer| at(pod, pointer).as_str().unwrap_or_default().to_owned();
    let node = text("/spec/nodeName");
    if node.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {name} does not have a node assigned"
        )));
    }
    let uid = text("/metadata/uid");
    Ok(Place { node, uid, container })
}

/// Opens a session on the pod's node; the client's place there is free again when the second is dropped.
pub(super) async fn open(
    server: &ApiServer,
    client: &Client,
    node: &str,
    kind: SessionKind,
) -> Result<(Session, Counted), ApiError> {
    let counted = server.share.on_node(client, node)?;
    let session = server.link.open_session(node, kind).await;
    let session = session.map_err(|e| ApiError::unavailable(e.to_string()))?;
    Ok((session, counted))
}

/// Streams the log as plain text.
pub(super) async fn log(call: &Call<'_>, parts: &Parts, name: &str) -> Result<Response, ApiError> {
    let query = axum::extract::Query::<LogQuery>::try_from_uri(&parts.uri)
        .map_err(|e| ApiError::bad_request(format!("query: {e}")))?
        .0;
    let part = query.part(OffsetDateTime::now_utc());
    let Part {
        tail_lines,
        limit_bytes,
        since_ms,
        stream,
    } = part.map_err(|errors| ApiError::invalid(call.resource.kind, name, &errors))?;
    let place = place(call.server, &call.resource, name, &query.container).await?;
    let container = place.container.clone();
    let kind = SessionKind::Logs {
        pod: place.uid,
        container: place.container,
        follow: query.follow,
        tail_lines,
        previous: query.previous,
        since_ms,
        stream,
        timestamps: query.timestamps,
    };
    let client = Client::of(&parts.extensions);
    let (mut session, counted) = open(call.server, &client, &place.node, kind).await?;
    // An error before the first line is an error of the request.
    let first = session.output.recv().await;
    if let Some(SessionFrame::Error(message)) = first {
        let resource = &call.resource;
        let pod = call
            .server
            .objects
            .get(resource.kind, resource.namespace(), name)
            .await;
        let none = pod.ok().and_then(|pod| no_log(&pod, &container, query.previous));
        return Err(ApiError::bad_request(none.unwrap_or(message)));
    }
    let shutdown = call.server.shutdown.clone();
    let start = (first, session, counted, limit_bytes);
    let lines = futures::stream::unfold(start, move |(next, mut session, counted, mut room)| {
        let shutdown = shutdown.clone();
        async move {
            let chunk = match next? {
                SessionFrame::Stdout(bytes) | SessionFrame::Stderr(bytes) => bytes,
                SessionFrame::Error(message) => format!("{message}\n").into(),
                _ => return None,
            };
            let chunk = within(&mut room, chunk);
            // A follower that has all that it asked for does not wait for more.
            let next = if room == Some(0) {
                None
            } else {
                // Cancel-safe: an mpsc receiver and a token.
                tokio::select! {
                    frame = session.output.recv() => frame,
                    () = shutdown.cancelled() => None,
                }
            };
            Some((
                Ok::<_, std::convert::Infallible>(chunk),
                (next, session, counted, room),
            ))
        }
    });
    Ok(([(CONTENT_TYPE, "text/plain")], Body::from_stream(lines)).into_response())
}

/// As much of a piece as there is room for; without a bound all of it.
fn within(room: &mut Option<u64>, mut piece: Bytes) -> Bytes {
    if let Some(left) = room {
        piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= piece.len() as u64;
    }
    piece
}

/// Why a container has no log, in Kubernetes' words, where its status says it.
fn no_log(pod: &Value, container: &str, previous: bool) -> Option<String> {
    if at(pod, "/status/reason") == EVICTED {
        let (name, why) = (
            at(pod, "/metadata/name").as_str()?,
            at(pod, "/status/message").as_str()?,
        );
        return Some(format!(
            "container {container:?} in pod {name:?} has no log any more: the pod was evicted, and its logs went with all that it had on the node ({why})"
        ));
    }
    let all = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let all = all.iter().filter_map(|list| at(pod, list).as_array()).flatten();
    let status = all.into_iter().find(|status| status["name"] == container)?;
    if at(status, "/lastState/terminated").is_object() {
        return None;
    }
    let name = at(pod, "/metadata/name").as_str()?;
    if previous {
        return Some(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        ));
    }
    let reason = at(status, "/state/waiting/reason").as_str()?;
    Some(format!(
        "container {container:?} in pod {name:?} is waiting to start: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_log_is_cut_off_after_so_many_bytes() {
        let mut room = Some(5);
        let pieces = ["one\n", "two\n", "three\n"].map(|piece| within(&mut room, Bytes::from(piece)));
        assert_eq!((pieces.concat(), room), (b"one\nt".to_vec(), Some(0)));
        assert_eq!(within(&mut None, Bytes::from("all")), "all");
    }

    #[test]
    fn a_container_without_a_log_says_why() {
        let pod = json!({"metadata": {"name": "p"}, "status": {
            "containerStatuses": [
                {"name": "waits", "state": {"waiting": {"reason": "CreateContainerError"}}, "lastState": {}},
                {"name": "runs", "state": {"running": {}}, "lastState": {}},
                {"name": "ran", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {}}}],
            "initContainerStatuses": [{"name": "first", "state": {"waiting": {"reason": "PodInitializing"}}}]}});
        let said = |container, previous| no_log(&pod, container, previous);
        let waits = |name: &str, reason: &str| {
            Some(format!(
                "container \"{name}\" in pod \"p\" is waiting to start: {reason}"
            ))
        };
        assert_eq!(said("waits", false), waits("waits", "CreateContainerError"));
        assert_eq!(said("first", false), waits("first", "PodInitializing"));
        let none = "previous terminated container \"runs\" in pod \"p\" not found";
        assert_eq!(said("runs", true).as_deref(), Some(none));
        for (container, previous) in [("runs", false), ("ran", false), ("ran", true), ("other", false)] {
            assert_eq!(said(container, previous), None, "{container}");
        }
        let evicted = json!({"metadata": {"name": "p"}, "status": {"reason": "Evicted", "message": "too much on the disk"}});
        let said = no_log(&evicted, "c", false).unwrap();
        assert!(
            said.contains("evicted") && said.ends_with("(too much on the disk)"),
            "{said}"
        );
    }
}
