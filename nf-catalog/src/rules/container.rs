//! Rules of a container.

use super::{MAX_ID, Problems, absolute_hint, dns_label_hint, is_clean_absolute, is_dns_label};
use crate::{Cpu, NfContainer, NfProbe, Quantity};

/// The least memory of a container in bytes; below it a process hardly starts.
const MIN_MEMORY_BYTES: u64 = 4 << 20;

pub(super) fn memory_problems(memory: Quantity, path: &str, found: &mut Problems) {
    found.require(memory.0 >= MIN_MEMORY_BYTES, path, || {
        format!("{} bytes are too few: at least 4Mi", memory.0)
    });
}

pub(super) fn container_problems(container: &NfContainer, path: &str, found: &mut Problems) {
    found.require(is_dns_label(&container.name), &format!("{path}.name"), || {
        dns_label_hint(&container.name)
    });
    found.require(!container.image.is_empty(), &format!("{path}.image"), || {
        "an image is needed".to_owned()
    });
    memory_problems(container.memory, &format!("{path}.memory"), found);
    cpu_problems(&container.cpu, &format!("{path}.cpu"), found);
    let security = &container.security;
    for (id, name) in [(security.user, "user"), (security.group, "group")] {
        let id = id.unwrap_or_default();
        found.require(id <= MAX_ID, &format!("{path}.security.{name}"), || {
            format!("{id} is too large: ids are 0 to {MAX_ID}")
        });
    }
    for (probe, name) in [
        (&container.startup_probe, "startupProbe"),
        (&container.readiness_probe, "readinessProbe"),
        (&container.liveness_probe, "livenessProbe"),
    ] {
        if let Some(probe) = probe {
            probe_problems(probe, &format!("{path}.{name}"), found);
        }
    }
    for (i, directory) in container.scratch.iter().enumerate() {
        found.require(
            is_clean_absolute(directory),
            &format!("{path}.scratch[{i}]"),
            || absolute_hint(directory),
        );
    }
}

pub(super) fn cpu_problems(cpu: &Cpu, path: &str, found: &mut Problems) {
    match cpu {
        Cpu::Exclusive { count, .. } => {
            found.require(*count > 0, &format!("{path}.count"), || {
                "0 exclusive CPUs: use mode shared".to_owned()
            });
        }
        Cpu::Shared { request, limit } => {
            let limit_is_lower = limit.is_some_and(|limit| limit < *request);
            found.require(!limit_is_lower, &format!("{path}.limit"), || {
                format!("the limit is below the request of {request}")
            });
        }
    }
}

fn probe_problems(probe: &NfProbe, path: &str, found: &mut Problems) {
    let actions = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
    ];
    found.require(actions.iter().filter(|set| **set).count() == 1, path, || {
        "exactly one of httpGet, tcpSocket and exec is needed".to_owned()
    });
    let asked = [
        probe.http_get.as_ref().map(|get| get.port),
        probe.tcp_socket.as_ref().map(|socket| socket.port),
    ];
    found.require(!asked.contains(&Some(0)), path, || {
        "port 0 cannot be asked".to_owned()
    });
    let positive = probe.period_seconds > 0 && probe.timeout_seconds > 0 && probe.failure_threshold > 0;
    found.require(positive, path, || {
        "periodSeconds, timeoutSeconds and failureThreshold must be at least 1".to_owned()
    });
}
