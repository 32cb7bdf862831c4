//! `portforward`: connections to ports of a pod, over one WebSocket. Two protocols speak of them: kubectl's is SPDY/3.1, with as
//! many connections as it likes ([`tunnel`]); that of other clients has one connection for each port asked for ([`channels`]).
//!
//! Source: k8s.io, KEP 4006 (`SPDY/3.1+portforward.k8s.io`), and kubelet's `portforward`.

mod channels;
mod spdy;
mod tunnel;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Query};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use gantry_nodeagent_api::{SessionFrame, SessionKind};
use http::request::Parts;
use tokio::sync::{Semaphore, mpsc};

use super::super::ApiServer;
use super::super::auth::{Admission, withdrawn};
use super::super::error::ApiError;
use super::super::path::Resource;
use super::super::share::Client;
use super::log::{Place, open, place_of_pod};

const SPDY: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
/// Connections at once by one WebSocket.
const AT_ONCE: usize = 64;
/// Frames on their way to the client, and to each connection.
const QUEUE: usize = 4;
/// Largest message of a client, in bytes: they send pieces of 32 KiB.
const MESSAGE_BYTES: usize = 1 << 20;

/// Upgrades the request.
pub(in super::super) async fn port_forward(
    server: ApiServer,
    resource: &Resource<'_>,
    mut parts: Parts,
) -> Result<Response, ApiError> {
    let ports = ports(&parts)?;
    let place = place_of_pod(&server, resource).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| ApiError::bad_request("portforward needs a WebSocket upgrade (kubectl 1.31 or later)"))?
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .protocols([SPDY, CHANNELS]);
    let spdy = upgrade.selected_protocol().is_some_and(|p| p == SPDY);
    if !spdy && ports.is_empty() {
        return Err(ApiError::bad_request(format!(
            "query parameter ports is missing: only {SPDY} names them later"
        )));
    }
    let client = Client::of(&parts.extensions);
    let counted = server.share.session(&client)?;
    let ended = withdrawn(Admission::of(&parts.extensions));
    let upgraded = upgrade.on_upgrade(async move |socket| {
        // Cancel-safe: whichever ends, nobody wants the rest of the other. The connections end with their channels.
        tokio::select! {
            () = forward(socket, server.clone(), client, place, &ports, spdy) => {}
            () = server.shutdown.cancelled() => {}
            () = ended => {}
        }
        drop(counted);
    });
    Ok(upgraded.into_response())
}

/// `ports=80,81` or `ports=80&ports=81`.
fn ports(parts: &Parts) -> Result<Vec<u16>, ApiError> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        .map_err(|e| ApiError::bad_request(format!("query: {e}")))?
        .0;
    let named = pairs.iter().filter(|(key, _)| key == "ports");
    let listed = named.flat_map(|(_, value)| value.split(','));
    let ports: Result<Vec<u16>, ApiError> = listed
        .map(|text| match text.parse() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(ApiError::bad_request(format!(
                "ports: {text:?} is not 1 to 65535"
            ))),
        })
        .collect();
    ports.and_then(|ports| match ports.len() {
        ..=AT_ONCE => Ok(ports),
        more => Err(ApiError::bad_request(format!(
            "{more} ports are asked for, {AT_ONCE} at most are forwarded"
        ))),
    })
}

async fn forward(
    socket: WebSocket,
    server: ApiServer,
    client: Client,
    place: Place,
    ports: &[u16],
    spdy: bool,
) {
    if spdy {
        let (connections, outgoing) = Connections::new(server, client, place);
        tunnel::run(socket, connections, outgoing).await;
    } else {
        let (connections, outgoing) = Connections::new(server, client, place);
        channels::run(socket, connections, outgoing, ports).await;
    }
}

/// What a connection says to the client.
enum Said {
    Data(Bytes),
    /// It is over; or why it could not be, in words.
    End(Result<(), String>),
}

/// The connections of one client; `Id` is how its protocol calls them.
struct Connections<Id> {
    server: ApiServer,
    client: Client,
    place: Arc<Place>,
    out: mpsc::Sender<(Id, Said)>,
    /// Towards the pod. Dropping one ends its connection.
    inputs: HashMap<Id, mpsc::Sender<SessionFrame>>,
    permits: Arc<Semaphore>,
}

impl<Id: Copy + Eq + Hash + Send + Sync + 'static> Connections<Id> {
    /// None yet; and what they will say.
    fn new(server: ApiServer, client: Client, place: Place) -> (Self, mpsc::Receiver<(Id, Said)>) {
        let (out, outgoing) = mpsc::channel(QUEUE);
        let connections = Self {
            server,
            client,
            place: Arc::new(place),
            out,
            inputs: HashMap::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        };
        (connections, outgoing)
    }

    /// Begins one; its end is said in any case.
    fn open(&mut self, id: Id, port: u16) {
        self.inputs.retain(|_, input| !input.is_closed());
        let (input, inputs) = mpsc::channel(QUEUE);
        self.inputs.insert(id, input);
        let permit = self.permits.clone().try_acquire_owned();
        let (server, client) = (self.server.clone(), self.client.clone());
        let (place, out) = (self.place.clone(), self.out.clone());
        tokio::spawn(async move {
            let ended = match permit {
                Ok(_permit) => connection(&server, &client, &place, port, inputs, (id, &out)).await,
                Err(_) => Err(format!("more than {AT_ONCE} connections at once")),
            };
            // Fails when the client is gone.
            let _ = out.send((id, Said::End(ended))).await;
        });
    }

    /// Passes something on, and waits while the pod is slow: then so is the client. What nobody takes any more is dropped.
    async fn give(&self, id: Id, frame: SessionFrame) {
        if let Some(input) = self.inputs.get(&id) {
            let _ = input.send(frame).await;
        }
    }

    fn close(&mut self, id: Id) {
        self.inputs.remove(&id);
    }
}

/// One connection, until the pod has ended it or the client is gone.
async fn connection<Id: Copy>(
    server: &ApiServer,
    client: &Client,
    place: &Place,
    port: u16,
    mut inputs: mpsc::Receiver<SessionFrame>,
    (id, out): (Id, &mpsc::Sender<(Id, Said)>),
) -> Result<(), String> {
    let kind = SessionKind::PortForward {
        pod: place.uid.clone(),
        port,
    };
    let opened = open(server, client, &place.node, kind).await;
    let (session, _counted) = opened.map_err(|e| e.to_string())?;
    let (input, mut output) = (session.input, session.output);
    let feed = async {
        while let Some(frame) = inputs.recv().await {
            if input.send(frame).await.is_err() {
                return;
            }
        }
    };
    let show = async {
        loop {
            match output.recv().await {
                Some(SessionFrame::Stdout(data)) => {
                    if out.send((id, Said::Data(data))).await.is_err() {
                        return Ok(());
                    }
                }
                Some(SessionFrame::Error(text)) => return Err(text),
                Some(SessionFrame::Exit(_)) => return Ok(()),
                Some(_) => {}
                None => return Err("the agent ended the session".to_owned()),
            }
        }
    };
    // Cancel-safe: when one of them ends, nobody wants the rest of the other.
    tokio::select! {
        ended = show => ended,
        () = feed => Ok(()),
        () = out.closed() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_either_way() {
        let read = |query: &str| {
            let request = http::Request::get(format!("/x?{query}")).body(()).unwrap();
            ports(&request.into_parts().0).map_err(|e| e.message)
        };
        assert_eq!(read("ports=80,81").unwrap(), [80, 81]);
        assert_eq!(read("ports=80&a=b&ports=81").unwrap(), [80, 81]);
        assert!(read("").unwrap().is_empty());
        for bad in ["ports=0", "ports=65536", "ports=", "ports=http"] {
            assert!(read(bad).unwrap_err().contains("65535"), "{bad}");
        }
        let many = vec!["1"; AT_ONCE + 1].join(",");
        assert!(read(&format!("ports={many}")).unwrap_err().contains("at most"));
    }
}
