//! `exec` and `attach`: a command in a container, or what it says, over a WebSocket, protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of a message is the channel: 0 stdin, 1 stdout, 2 stderr, 3 error (a Status), 4 resize, 255 close (v5).

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Query as UrlQuery};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use gantry_nodeagent_api::{SessionFrame, SessionKind};
use http::request::Parts;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::super::ApiServer;
use super::super::auth::{Admission, withdrawn};
use super::super::error::ApiError;
use super::super::path::Resource;
use super::super::share::Client;
use super::log::{Place, open, place};
use crate::link::Session;

/// A client that was told the end has so long to answer (RFC 6455, section 7.1.1).
const LAST_WORDS: Duration = Duration::from_secs(2);
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Upgrades the request; the command runs when the WebSocket is open.
pub(in super::super) async fn exec(
    server: ApiServer,
    resource: &Resource<'_>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let query = Query::of(&parts)?;
    if query.command.is_empty() {
        return Err(ApiError::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let place = query.place(&server, resource).await?;
    let kind = SessionKind::Exec {
        pod: place.uid,
        container: place.container,
        argv: query.command,
        tty: query.tty,
        stdin: query.stdin,
    };
    upgrade(server, parts, &place.node, kind).await
}

/// Upgrades the request; what the container says from now on follows. Containers have no standard input.
pub(in super::super) async fn attach(
    server: ApiServer,
    resource: &Resource<'_>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let query = Query::of(&parts)?;
    let place = query.place(&server, resource).await?;
    if query.stdin || query.tty {
        return Err(ApiError::bad_request(format!(
            "container {} has no standard input and no terminal: attach without -i and -t to see what it says, or use exec",
            place.container
        )));
    }
    let kind = SessionKind::Logs {
        pod: place.uid,
        container: place.container,
        follow: true,
        tail_lines: Some(0),
        previous: false,
        since_ms: None,
        stream: None,
        timestamps: false,
    };
    upgrade(server, parts, &place.node, kind).await
}

async fn upgrade(
    server: ApiServer,
    mut parts: Parts,
    node: &str,
    kind: SessionKind,
) -> Result<Response, ApiError> {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| {
            ApiError::bad_request("exec and attach need a WebSocket upgrade (kubectl 1.31 or later)")
        })?;
    let client = Client::of(&parts.extensions);
    let counted = server.share.session(&client)?;
    let admission = Admission::of(&parts.extensions);
    let (session, on_node) = open(&server, &client, node, kind).await?;
    let most = server.limits.share.session_message_bytes;
    let upgraded = upgrade
        .protocols(PROTOCOLS)
        .max_message_size(most)
        .max_frame_size(most)
        .on_upgrade(async move |socket| {
            relay(socket, session, server, admission).await;
            drop((counted, on_node));
        });
    Ok(upgraded.into_response())
}

/// What the URL asks for.
struct Query {
    command: Vec<String>,
    container: String,
    tty: bool,
    stdin: bool,
}

impl Query {
    fn of(parts: &Parts) -> Result<Self, ApiError> {
        let pairs = UrlQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| ApiError::bad_request(format!("query: {e}")))?
            .0;
        let last = |key: &str| pairs.iter().rfind(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let flag = |key: &str| matches!(last(key), Some("true" | "1"));
        let commands = pairs.iter().filter(|(k, _)| k == "command");
        Ok(Self {
            command: commands.map(|(_, v)| v.clone()).collect(),
            container: last("container").unwrap_or_default().to_owned(),
            tty: flag("tty"),
            stdin: flag("stdin"),
        })
    }

    async fn place(&self, server: &ApiServer, resource: &Resource<'_>) -> Result<Place, ApiError> {
        let name = resource.name.ok_or_else(ApiError::no_such_path)?;
        place(server, resource, name, &self.container).await
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(bytes.len() + 1);
    out.put_u8(channel);
    out.extend_from_slice(bytes);
    Message::Binary(out.freeze())
}

async fn relay(socket: WebSocket, session: Session, server: ApiServer, admission: Option<Admission>) {
    let (mut sink, stream) = socket.split();
    let Session { input, output } = session;
    let activity = Notify::new();
    let idle = server.limits.share.session_idle;
    let mut fed = std::pin::pin!(feed(stream, input, &activity));
    // Both directions go on at once: a command that waits for its output to be taken takes no input meanwhile.
    // Cancel-safe: what is shown is not wanted any more when another one ends, and `fed` goes on. A message that was half given
    // to the socket is sent first.
    let (over, cut_off) = tokio::select! {
        over = show(output, &mut sink, &activity) => (over, None),
        () = &mut fed => (false, None),
        () = silence(&activity, idle) => (true, Some(ApiError::too_slow(format!("nothing was said for {idle:?}")))),
        () = server.shutdown.cancelled() => (true, Some(ApiError::unavailable("the control plane is stopped or replaced"))),
        () = withdrawn(admission) => (true, Some(ApiError::revoked())),
    };
    if let Some(why) = cut_off {
        // A client that is not told of a failure takes the end for the command's success.
        let told = sink.send(frame(ERROR, why.status().to_string().as_bytes()));
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
    }
    if over {
        let close = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        // The client may be gone already. One that still sends would miss the exit code if the connection broke off now.
        if sink.send(Message::Close(Some(close))).await.is_ok() {
            let _ = tokio::time::timeout(LAST_WORDS, fed).await;
        }
    }
}

/// Returns when nothing was said for so long.
async fn silence(activity: &Notify, most: Duration) {
    while tokio::time::timeout(most, activity.notified()).await.is_ok() {}
}

/// From the pod to the client; false if the client is gone.
async fn show(
    mut output: mpsc::Receiver<SessionFrame>,
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    activity: &Notify,
) -> bool {
    loop {
        let said = output.recv().await;
        activity.notify_one();
        let (message, last) = match said {
            Some(SessionFrame::Stdout(bytes)) => (frame(STDOUT, &bytes), false),
            Some(SessionFrame::Stderr(bytes)) => (frame(STDERR, &bytes), false),
            Some(SessionFrame::Exit(code)) => (frame(ERROR, exit_status(code).to_string().as_bytes()), true),
            Some(SessionFrame::Error(text)) => (failure(text), true),
            Some(_) => continue,
            None => (failure("the agent ended the session".to_owned()), true),
        };
        if sink.send(message).await.is_err() {
            return false;
        }
        if last {
            return true;
        }
    }
}

/// From the client to the pod, until the client is gone. What a command that has ended does not take is dropped.
async fn feed(
    mut stream: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    to: mpsc::Sender<SessionFrame>,
    activity: &Notify,
) {
    while let Some(Ok(message)) = stream.next().await {
        activity.notify_one();
        match message {
            Message::Binary(bytes) => {
                if let Some(input) = input(&bytes) {
                    let _ = to.send(input).await;
                }
            }
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return,
        }
    }
}

fn failure(text: String) -> Message {
    frame(ERROR, ApiError::internal(text).status().to_string().as_bytes())
}

fn input(bytes: &Bytes) -> Option<SessionFrame> {
    let (channel, rest) = (*bytes.first()?, bytes.slice(1..));
    match channel {
        STDIN => Some(SessionFrame::Stdin(rest)),
        CLOSE if rest.first() == Some(&STDIN) => Some(SessionFrame::StdinEof),
        RESIZE => {
            let size: Value = serde_json::from_slice(&rest).ok()?;
            let number = |key: &str| size[key].as_u64().and_then(|n| u16::try_from(n).ok());
            Some(SessionFrame::Resize {
                columns: number("Width")?,
                rows: number("Height")?,
            })
        }
        _ => None,
    }
}

/// How kubectl learns the exit code.
fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
