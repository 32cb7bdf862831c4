//! Kubernetes' probes as an agent runs them.

use gantry_api::ReloadHook;
use gantry_nodeagent_api::{Hook, HttpGet, Probe, ProbeAction};
use k8s_openapi::api::core::v1::{self as k8s, Container};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::one::exactly_one;

/// Fields of a probe that do not say what it does.
const NUMBERS: &[&str] = &[
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "failureThreshold",
    "successThreshold",
    "terminationGracePeriodSeconds",
];

/// In words why there is no such probe on a node; without it the container would count as ready at once.
pub(super) fn convert(from: &k8s::Probe, container: &Container) -> Result<Probe, String> {
    exactly_one(from, NUMBERS).map_err(|e| format!("a probe of container `{}`: {e}", container.name))?;
    let action = if let Some(get) = &from.http_get {
        ProbeAction::HttpGet(http_get(get, container)?)
    } else if let Some(socket) = &from.tcp_socket {
        ProbeAction::TcpSocket {
            port: port(&socket.port, container)?,
        }
    } else if let Some(exec) = &from.exec {
        ProbeAction::Exec {
            command: exec.command.clone().unwrap_or_default(),
        }
    } else {
        return Err(format!(
            "a probe of container `{}` is of a type that is not supported: use httpGet, tcpSocket or exec",
            container.name
        ));
    };
    let number =
        |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
    let ms = |value: Option<i32>, default: u32| u64::from(number(value, default)) * 1000;
    Ok(Probe {
        action,
        initial_delay_ms: ms(from.initial_delay_seconds, 0),
        period_ms: ms(from.period_seconds, 10).max(1000),
        timeout_ms: ms(from.timeout_seconds, 1).max(1000),
        failure_threshold: number(from.failure_threshold, 3).max(1),
        success_threshold: number(from.success_threshold, 1).max(1),
        termination_grace_s: from
            .termination_grace_period_seconds
            .map(|s| u32::try_from(s.max(1)).unwrap_or(u32::MAX)),
    })
}

/// In words why there is no such hook on a node.
pub(super) fn hook(from: &k8s::LifecycleHandler, container: &Container) -> Result<Hook, String> {
    exactly_one(from, &[]).map_err(|e| format!("a hook of container `{}`: {e}", container.name))?;
    if let Some(exec) = &from.exec {
        Ok(Hook::Exec {
            command: exec.command.clone().unwrap_or_default(),
        })
    } else if let Some(get) = &from.http_get {
        Ok(Hook::HttpGet(http_get(get, container)?))
    } else if let Some(sleep) = &from.sleep {
        Ok(Hook::Sleep {
            seconds: u32::try_from(sleep.seconds.max(0)).unwrap_or(u32::MAX),
        })
    } else {
        Err(format!(
            "a hook of container `{}` is of a type that is not supported: use exec, httpGet or sleep",
            container.name
        ))
    }
}

/// Where it says another host than the pod, which the API refuses, the pod is asked.
fn http_get(from: &k8s::HTTPGetAction, container: &Container) -> Result<HttpGet, String> {
    let headers = from.http_headers.iter().flatten();
    Ok(HttpGet {
        port: port(&from.port, container)?,
        path: from.path.clone().unwrap_or_else(|| "/".to_owned()),
        headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port)
        }
    };
    let unknown = || {
        format!(
            "a probe or hook of container `{}` names a port that it does not have",
            container.name
        )
    };
    let number = number.and_then(|n| u16::try_from(n).ok());
    number.filter(|n| *n > 0).ok_or_else(unknown)
}

/// What a container does when its files were replaced.
pub(super) fn reload(from: &ReloadHook) -> Hook {
    match from {
        ReloadHook::Signal(signal) => Hook::Signal { signal: *signal },
        ReloadHook::Exec(command) => Hook::Exec {
            command: command.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_probe_that_cannot_be_run_is_not_left_out() {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).unwrap();
        let convert = |probe| convert(&serde_json::from_value(probe).unwrap(), &container);
        let found = convert(json!({"tcpSocket": {"port": "web"}})).unwrap();
        assert_eq!(found.action, ProbeAction::TcpSocket { port: 8080 });
        let get = json!({"port": 1, "httpHeaders": [{"name": "Host", "value": "a.example"}]});
        let found = convert(json!({"httpGet": get.clone()})).unwrap();
        let wanted = HttpGet {
            port: 1,
            path: "/".to_owned(),
            headers: vec![("Host".to_owned(), "a.example".to_owned())],
        };
        assert_eq!(found.action, ProbeAction::HttpGet(wanted.clone()));
        let of_hook = serde_json::from_value(json!({"httpGet": get})).unwrap();
        assert_eq!(hook(&of_hook, &container), Ok(Hook::HttpGet(wanted)));
        for bad in [
            json!({"grpc": {"port": 1}}),
            json!({"periodSeconds": 1}),
            json!({"tcpSocket": {"port": "web"}, "exec": {"command": ["true"]}}),
            json!({"tcpSocket": {"port": "web"}, "grpc": {"port": 1}}),
            json!({"tcpSocket": {"port": "other"}}),
        ] {
            assert!(convert(bad).unwrap_err().contains("`c`"));
        }
        for bad in [
            json!({}),
            json!({"exec": {"command": ["true"]}, "sleep": {"seconds": 1}}),
            json!({"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}}),
        ] {
            let bad = serde_json::from_value(bad).unwrap();
            assert!(hook(&bad, &container).unwrap_err().contains("`c`"));
        }
    }
}
