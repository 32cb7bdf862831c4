//! Asks containers: HTTP, TCP, a command; and how many sessions there are.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use gantry_nodeagent_api::{Probe, ProbeAction, SessionProbe};
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
    sum(&String::from_utf8_lossy(&answer.body), &probe.metric)
        .ok_or_else(|| format!("{target} does not tell {}", probe.metric))
}

/// Sum of all samples of one metric (Prometheus text format 0.0.4); `None` if there is none, or if it would be 0 and one of
/// them tells nothing (NaN, no number, below 0): unknown is not 0.
fn sum(text: &str, metric: &str) -> Option<u64> {
    let mut total = None;
    let mut unclear = false;
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix(metric) else {
            continue;
        };
        let value = match rest.as_bytes().first() {
            Some(b'{') => after_labels(rest),
            Some(b' ' | b'\t') => Some(rest),
            _ => continue,
        };
        let value = value.and_then(|v| v.split_ascii_whitespace().next()?.parse::<f64>().ok());
        match value.filter(|v| v.is_finite() && *v >= 0.0) {
            Some(value) => *total.get_or_insert(0.0) += value,
            None => unclear = true,
        }
    }
    if unclear && total == Some(0.0) {
        return None;
    }
    // Saturates; half a session is one.
    total.map(|t: f64| t.ceil() as u64)
}

/// What follows `{...}`; label values may hold braces and escaped quotes.
fn after_labels(text: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(&text[index + 1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_samples_and_nothing_else() {
        let text = "# HELP dialogs x\n# TYPE dialogs gauge\ndialogs{a=\"}\\\"\"} 3 1700000000\ndialogs 4\n\
                    dialogs_total 100\ndialogs{x=\"y\"} NaN\n";
        assert_eq!(sum(text, "dialogs"), Some(7));
        assert_eq!(sum(text, "dialogs_total"), Some(100));
        assert_eq!(sum(text, "dialog"), None);
        for unclear in [
            "dialogs 0\ndialogs{a=\"b\"} NaN\n",
            "dialogs -1\n",
            "dialogs{ 0\ndialogs 0",
        ] {
            assert_eq!(sum(unclear, "dialogs"), None, "{unclear}");
        }
        assert_eq!(sum("dialogs 1e3\ndialogs 0.5", "dialogs"), Some(1001));
    }
}
