//! Does what a container asks for around its life: most of it as a probe does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_nodeagent_api::{Hook, Probe, ProbeAction};

use super::pods::Pods;
use super::{entering, probe};

/// Does it to a container, given as its pod's uid and its name; in words why that failed.
pub(super) async fn run(
    hook: Hook,
    pods: &Arc<Pods>,
    (uid, container): (&str, &str),
    address: IpAddr,
    timeout_ms: u64,
) -> Result<(), String> {
    let action = match hook {
        Hook::HttpGet(get) => ProbeAction::HttpGet(get),
        Hook::Exec { command } => ProbeAction::Exec { command },
        Hook::Sleep { seconds } => {
            let asked = Duration::from_secs(seconds.into());
            tokio::time::sleep(asked.min(Duration::from_millis(timeout_ms))).await;
            return Ok(());
        }
        Hook::Signal { signal } => {
            let (pods, uid, container) = (pods.clone(), uid.to_owned(), container.to_owned());
            let send = move || pods.send(&uid, &container, signal);
            let sent = tokio::task::spawn_blocking(send).await;
            return sent.unwrap_or_else(|e| Err(e.to_string()));
        }
    };
    let as_probe = Probe {
        action,
        initial_delay_ms: 0,
        period_ms: 0,
        timeout_ms,
        failure_threshold: 1,
        success_threshold: 1,
        termination_grace_s: None,
    };
    let enter = || entering::command(pods, uid, container);
    probe::run(&as_probe, address, enter).await
}
