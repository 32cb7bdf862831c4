//! The page of an instance on which it tells what it does.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_catalog::Metrics;
use gantry_nodeagent_api::exposition;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::client::{Client, said};

const TIMEOUT: Duration = Duration::from_secs(5);
const MOST_BYTES: usize = 1 << 20;

/// What it says.
pub struct Page {
    pub sessions: Option<u64>,
    pub requests: Option<u64>,
}

/// Asks a pod, by way of the API server.
pub async fn read(client: &Client, pod: &Pod, metrics: &Metrics) -> Result<Page> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let asked = tokio::time::timeout(TIMEOUT, get(client, name, metrics));
    let text = asked.await.context("its metrics do not come")??;
    let sum = |metric: &Option<String>| exposition::sum(&text, metric.as_ref()?);
    Ok(Page {
        sessions: sum(&metrics.sessions),
        requests: sum(&metrics.requests),
    })
}

async fn get(client: &Client, pod: &str, metrics: &Metrics) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.kube(), &client.namespace);
    let mut forwarder = pods.portforward(pod, &[metrics.port]).await.map_err(said)?;
    let stream = forwarder
        .take_stream(metrics.port)
        .context("its port is not forwarded")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let request = Request::get(&metrics.path)
        .header("host", pod)
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .context("its package names no path")?;
    let answer = sender
        .send_request(request)
        .await
        .context("its metrics do not come")?;
    if !answer.status().is_success() {
        bail!("its metrics are answered {}", answer.status());
    }
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
    driving.abort();
    let body = body.map_err(|e| anyhow::anyhow!("its metrics break off: {e}"))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
