//! Rules on a container's ports. Others lead to them by number or by name: Services, probes, hooks.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `validateContainerPorts`; k8s.io/apimachinery/pkg/util/validation,
//! `IsValidPortName`.

use std::collections::HashSet;

use serde_json::Value;

use super::FieldError;
use super::path::{at, list, text};

type Errors = Vec<FieldError>;

/// Transport protocols that a packet can be led by.
pub(super) const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

/// Of the container at `here`.
pub(super) fn check(container: &Value, here: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, port) in list(container, "/ports").iter().enumerate() {
        let here = format!("{here}.ports[{i}]");
        if !at(port, "/containerPort").as_i64().is_some_and(is_port) {
            errors.push(FieldError::invalid(
                format!("{here}.containerPort"),
                "must be 1 to 65535",
            ));
        }
        protocol(port, &here, errors);
        let name = text(port, "/name");
        if !name.is_empty() && !is_port_name(name) {
            errors.push(FieldError::invalid(
                format!("{here}.name"),
                port_name_problem(name),
            ));
        } else if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{here}.name"), at(port, "/name")));
        }
    }
}

/// A port's protocol, at `here`.
pub(super) fn protocol(port: &Value, here: &str, errors: &mut Errors) {
    let protocol = text(port, "/protocol");
    if !protocol.is_empty() && !PROTOCOLS.contains(&protocol) {
        let message = format!("{protocol:?} is not one of {}", PROTOCOLS.join(", "));
        errors.push(FieldError::invalid(format!("{here}.protocol"), message));
    }
}

pub(super) fn is_port(number: i64) -> bool {
    (1..=65_535).contains(&number)
}

/// A service name (RFC 6335, 5.1): as a port is called.
pub(super) fn is_port_name(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=15).contains(&name.len())
        && name.chars().all(sound)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

pub(super) fn port_name_problem(name: &str) -> String {
    format!(
        "{name:?} is no name of a port (RFC 6335): 1 to 15 lower-case letters, digits and single `-` within, at least one letter"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(ports: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&json!({"name": "c", "ports": ports}), "c", &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        for number in [json!(0), json!(-1), json!(65_536), json!(null), json!("80")] {
            let found = refused(json!([{"containerPort": number}]));
            assert_eq!(found, ["c.ports[0].containerPort"], "{number}");
        }
        let good = json!([{"containerPort": 1, "name": "a"}, {"containerPort": 65_535, "protocol": "SCTP", "name": "b-2"}]);
        assert!(refused(good).is_empty());
        let twice = json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]);
        assert_eq!(refused(twice), ["c.ports[1].name"]);
        for protocol in ["tcp", "ICMP", "Udp"] {
            let found = refused(json!([{"containerPort": 1, "protocol": protocol}]));
            assert_eq!(found, ["c.ports[0].protocol"], "{protocol}");
        }
    }

    #[test]
    fn names_are_those_of_services() {
        for name in [
            "X",
            "1",
            "-a",
            "a-",
            "a--b",
            "a_b",
            "sixteen-letters-",
            "seventeen-letters",
        ] {
            assert_eq!(
                refused(json!([{"containerPort": 1, "name": name}])),
                ["c.ports[0].name"],
                "{name}"
            );
        }
        for name in ["sip", "h2", "a-b-c", "fifteen-letters"] {
            assert!(
                refused(json!([{"containerPort": 1, "name": name}])).is_empty(),
                "{name}"
            );
        }
    }
}
