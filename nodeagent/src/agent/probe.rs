//! Asks containers: HTTP, TCP, a command; and how many sessions there are.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use gantry_nodeagent_api::{Probe, ProbeAction, SessionProbe, exposition};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::http::{self, Bound};
use crate::guard;

/// Of the answer to an HTTP probe or hook only the status counts: a body without end is cut off, as in Kubernetes.
const PROBE_BOUND: Bound = Bound {
    bytes: 64 << 10,
    cut: true,
};
/// A page of metrics without its end would tell a wrong number.
const METRICS_BOUND: Bound = Bound {
    bytes: 1 << 20,
    cut: false,
};
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs one probe; `enter` begins the process of a command. The error is for people.
pub(super) async fn run(
    probe: &Probe,
    address: IpAddr,
    enter: impl FnOnce() -> std::process::Command,
) -> Result<(), String> {
    let timeout = time(Duration::from_millis(probe.timeout_ms));
    match &probe.action {
        ProbeAction::HttpGet(get) => {
            let (port, path) = (get.port, &get.path);
            let target = SocketAddr::new(address, port);
            let answer = http::get(target, path, &get.headers, bound(PROBE_BOUND), timeout).await;
            match answer {
                Ok(answer) if (200..400).contains(&answer.status) => Ok(()),
                Ok(answer) => Err(format!("GET {path} on port {port} answered {}", answer.status)),
                Err(e) => Err(format!("GET {path} on port {port}: {e}")),
            }
        }
        ProbeAction::TcpSocket { port } => {
            match tokio::time::timeout(timeout, TcpStream::connect((address, *port))).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(e)) => Err(format!("port {port}: {e}")),
                Err(_) => Err(format!(
                    "port {port}: no answer within {} ms",
                    timeout.as_millis()
                )),
            }
        }
        ProbeAction::Exec { command } => {
            let mut child = Command::from(enter());
            child
                .arg("--")
                .args(command)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            match tokio::time::timeout(timeout, child.status()).await {
                Ok(Ok(status)) if status.success() => Ok(()),
                Ok(Ok(status)) => Err(format!("the command ended with {status}")),
                Ok(Err(e)) => Err(format!("the command could not be run: {e}")),
                Err(_) => Err(format!(
                    "the command did not end within {} ms",
                    timeout.as_millis()
                )),
            }
        }
    }
}

fn bound(usual: Bound) -> Bound {
    match guard::off("http-bound") {
        true => Bound {
            bytes: usize::MAX,
            cut: true,
        },
        false => usual,
    }
}

fn time(usual: Duration) -> Duration {
    match guard::off("probe-time") {
        true => Duration::MAX,
        false => usual,
    }
}

/// Reads the number of sessions.
pub(super) async fn sessions(probe: &SessionProbe, address: IpAddr) -> Result<u64, String> {
    let target = SocketAddr::new(address, probe.port);
    let answer = http::get(
        target,
        &probe.path,
        &[],
        bound(METRICS_BOUND),
        time(METRICS_TIMEOUT),
    )
    .await
    .map_err(|e| format!("{target}: {e}"))?;
    if answer.status != 200 {
        return Err(format!("{target} answered {}", answer.status));
    }
    exposition::sum(&String::from_utf8_lossy(&answer.body), &probe.metric)
        .ok_or_else(|| format!("{target} does not tell {}", probe.metric))
}
