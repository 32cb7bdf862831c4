//! Kubernetes' probes as an agent runs them.

use gantry_nodeagent_api::{Probe, ProbeAction};
use k8s_openapi::api::core::v1::{self as k8s, Container};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// `None` for a probe without a supported action.
pub(super) fn convert(from: &k8s::Probe, container: &Container) -> Option<Probe> {
    let action = if let Some(get) = &from.http_get {
        let path = get.path.clone().unwrap_or_else(|| "/".to_owned());
        ProbeAction::HttpGet {
            port: port(&get.port, container)?,
            path,
        }
    } else if let Some(socket) = &from.tcp_socket {
        ProbeAction::TcpSocket {
            port: port(&socket.port, container)?,
        }
    } else {
        ProbeAction::Exec {
            command: from.exec.as_ref()?.command.clone().unwrap_or_default(),
        }
    };
    let number =
        |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
    let ms = |value: Option<i32>, default: u32| u64::from(number(value, default)) * 1000;
    Some(Probe {
        action,
        initial_delay_ms: ms(from.initial_delay_seconds, 0),
        period_ms: ms(from.period_seconds, 10).max(1000),
        timeout_ms: ms(from.timeout_seconds, 1).max(1000),
        failure_threshold: number(from.failure_threshold, 3).max(1),
        success_threshold: number(from.success_threshold, 1).max(1),
    })
}

fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let found = container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))?;
            u16::try_from(found.container_port).ok()
        }
    }
}
