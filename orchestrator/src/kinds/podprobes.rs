//! Rules on probes and hooks: each can be done as it is written, or is refused.

use serde_json::Value;

use super::FieldError;
use super::path::{at, list, text};

type Errors = Vec<FieldError>;

/// Headers of one request, and their names and values together: more than any server takes.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 8 << 10;

/// A probe that cannot be run would count as passed, or stop a container that is well.
pub(super) fn probe(container: &Value, field: &str, here: &str, errors: &mut Errors) {
    let probe = at(container, &format!("/{field}"));
    if probe.is_null() {
        return;
    }
    let here = format!("{here}.{field}");
    probe_numbers(probe, field, &here, errors);
    if field == "readinessProbe" && !at(probe, "/terminationGracePeriodSeconds").is_null() {
        let message = "must not be set for readinessProbes";
        errors.push(FieldError::invalid(
            format!("{here}.terminationGracePeriodSeconds"),
            message,
        ));
    }
    let asked = ["exec", "httpGet", "tcpSocket", "grpc"].into_iter();
    let asked: Vec<&str> = asked.filter(|a| !at(probe, &format!("/{a}")).is_null()).collect();
    match asked.as_slice() {
        ["exec"] => runs(probe, &here, errors),
        [action @ ("httpGet" | "tcpSocket")] => asks(probe, action, container, &here, errors),
        _ => {
            let message = "exactly one of httpGet, tcpSocket and exec is needed";
            errors.push(FieldError::invalid(here, message));
        }
    }
}

/// Source: k8s.io/kubernetes/pkg/apis/core/validation, `validateProbe`.
fn probe_numbers(probe: &Value, field: &str, here: &str, errors: &mut Errors) {
    for (name, least) in [
        ("initialDelaySeconds", 0),
        ("timeoutSeconds", 0),
        ("periodSeconds", 0),
        ("successThreshold", 0),
        ("failureThreshold", 0),
        ("terminationGracePeriodSeconds", 1),
    ] {
        if at(probe, &format!("/{name}")).as_i64().is_some_and(|n| n < least) {
            let message = format!("must be greater than or equal to {least}");
            errors.push(FieldError::invalid(format!("{here}.{name}"), message));
        }
    }
    let successes = at(probe, "/successThreshold").as_i64().unwrap_or(1);
    if field != "readinessProbe" && successes > 1 {
        errors.push(FieldError::invalid(
            format!("{here}.successThreshold"),
            "must be 1",
        ));
    }
}

/// A hook that cannot be done would be a promise not kept; in its pod's time to stop, `grace_s`, one that sleeps has to end.
pub(super) fn hook(hook: &Value, container: &Value, grace_s: i64, here: &str, errors: &mut Errors) {
    if hook.is_null() {
        return;
    }
    let asked = ["exec", "httpGet", "sleep", "tcpSocket"].into_iter();
    let asked: Vec<&str> = asked.filter(|a| !at(hook, &format!("/{a}")).is_null()).collect();
    match asked.as_slice() {
        ["exec"] => runs(hook, here, errors),
        ["sleep"] => {
            let seconds = at(hook, "/sleep/seconds");
            if !seconds.as_i64().is_some_and(|s| (0..=grace_s).contains(&s)) {
                let message = format!(
                    "{seconds} is not a number of seconds from 0 to {grace_s} (terminationGracePeriodSeconds)"
                );
                errors.push(FieldError::invalid(format!("{here}.sleep.seconds"), message));
            }
        }
        ["httpGet"] => asks(hook, "httpGet", container, here, errors),
        _ => {
            let message = "exactly one of exec, httpGet and sleep is needed (tcpSocket has no effect in Kubernetes, and is refused here)";
            errors.push(FieldError::invalid(here, message));
        }
    }
}

fn runs(from: &Value, here: &str, errors: &mut Errors) {
    if list(from, "/exec/command").is_empty() {
        errors.push(FieldError::required(
            format!("{here}.exec.command"),
            "a command is needed",
        ));
    }
}

/// Where and what `httpGet` and `tcpSocket` ask.
fn asks(from: &Value, action: &str, container: &Value, here: &str, errors: &mut Errors) {
    if !["", "HTTP"].contains(&text(from, "/httpGet/scheme")) {
        let message = "only HTTP is supported: use tcpSocket or exec instead";
        errors.push(FieldError::invalid(format!("{here}.httpGet.scheme"), message));
    }
    if !text(from, &format!("/{action}/host")).is_empty() {
        errors.push(FieldError {
            field: format!("{here}.{action}.host"),
            message: "only the pod itself is asked, for the node reaches what the pod may not: leave it out, and use a Host header in httpHeaders for a name".to_owned(),
            reason: "FieldValueForbidden",
        });
    }
    let port = at(from, &format!("/{action}/port"));
    let known = match port.as_str() {
        Some(name) => list(container, "/ports").iter().any(|p| text(p, "/name") == name),
        None => port.as_i64().is_some_and(|n| (1..=65_535).contains(&n)),
    };
    if !known {
        let message = format!("{port} is neither 1 to 65535 nor the name of one of the container's ports");
        errors.push(FieldError::invalid(format!("{here}.{action}.port"), message));
    }
    headers(
        list(from, "/httpGet/httpHeaders"),
        &format!("{here}.httpGet.httpHeaders"),
        errors,
    );
}

/// Source: k8s.io/kubernetes/pkg/apis/core/validation, `validateHTTPGetAction`; for values golang.org/x/net/http/httpguts,
/// `ValidHeaderFieldValue`, without which no probe of kubelet's would be sent.
fn headers(headers: &[Value], here: &str, errors: &mut Errors) {
    let bytes: usize = headers
        .iter()
        .map(|h| text(h, "/name").len() + text(h, "/value").len())
        .sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        errors.push(FieldError {
            field: here.to_owned(),
            message: format!(
                "{} headers of {bytes} bytes: a request may have {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes together",
                headers.len()
            ),
            reason: "FieldValueTooMany",
        });
    }
    for (i, header) in headers.iter().enumerate() {
        let name = text(header, "/name");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let message = format!(
                "{name:?}: a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')"
            );
            errors.push(FieldError::invalid(format!("{here}[{i}].name"), message));
        }
        if text(header, "/value")
            .bytes()
            .any(|b| b.is_ascii_control() && b != b'\t')
        {
            let message = "must not have line breaks or other control characters";
            errors.push(FieldError::invalid(format!("{here}[{i}].value"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fields of a probe that are refused.
    fn refused(probe: Value) -> Vec<String> {
        let container = json!({"ports": [{"name": "web", "containerPort": 80}], "livenessProbe": probe});
        let mut errors = Errors::new();
        super::probe(&container, "livenessProbe", "c", &mut errors);
        let mut fields: Vec<String> = errors.into_iter().map(|e| e.field).collect();
        if !at(&probe, "/httpGet").is_null() {
            let mut errors = Errors::new();
            super::hook(&probe, &container, 30, "c.livenessProbe", &mut errors);
            let of_hook: Vec<String> = errors.into_iter().map(|e| e.field).collect();
            assert_eq!(of_hook, fields, "a hook asks as a probe does");
        }
        for field in &mut fields {
            *field = field.strip_prefix("c.livenessProbe").unwrap().to_owned();
        }
        fields
    }

    #[test]
    fn a_probe_that_cannot_be_run_is_refused() {
        for good in [
            json!({"exec": {"command": ["true"]}}),
            json!({"tcpSocket": {"port": 80}}),
            json!({"httpGet": {"port": "web", "scheme": "HTTP", "host": ""}}),
        ] {
            assert!(refused(good).is_empty());
        }
        for (bad, field) in [
            (json!({"grpc": {"port": 80}}), ""),
            (json!({}), ""),
            (
                json!({"exec": {"command": ["true"]}, "tcpSocket": {"port": 80}}),
                "",
            ),
            (json!({"exec": {"command": []}}), ".exec.command"),
            (json!({"exec": {}}), ".exec.command"),
            (json!({"httpGet": {"port": "other"}}), ".httpGet.port"),
            (json!({"tcpSocket": {"port": 0}}), ".tcpSocket.port"),
            (
                json!({"httpGet": {"port": 80, "scheme": "HTTPS"}}),
                ".httpGet.scheme",
            ),
            // The node would connect there with its own address.
            (
                json!({"httpGet": {"port": 80, "host": "127.0.0.1"}}),
                ".httpGet.host",
            ),
            (
                json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}}),
                ".tcpSocket.host",
            ),
        ] {
            assert_eq!(refused(bad), [field]);
        }
    }

    #[test]
    fn a_hook_that_cannot_be_done_is_refused() {
        let fields = |asked: Value| {
            let mut errors = Errors::new();
            hook(&asked, &json!({}), 20, "h", &mut errors);
            errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        for good in [0, 1, 20] {
            assert!(fields(json!({"sleep": {"seconds": good}})).is_empty(), "{good}");
        }
        for bad in [json!(-1), json!(21), json!(null)] {
            assert_eq!(
                fields(json!({"sleep": {"seconds": bad}})),
                ["h.sleep.seconds"],
                "{bad}"
            );
        }
        assert_eq!(fields(json!({"exec": {"command": []}})), ["h.exec.command"]);
        assert!(fields(json!({"exec": {"command": ["true"]}})).is_empty());
    }

    #[test]
    fn headers_are_headers_and_have_an_end() {
        let with = |headers: Value| refused(json!({"httpGet": {"port": 80, "httpHeaders": headers}}));
        let one = |name: &str, value: &str| json!({"name": name, "value": value});
        assert!(
            with(json!([
                one("Host", "a.example"),
                one("X-1", "a b\tc \u{e9}"),
                one("X-1", "")
            ]))
            .is_empty()
        );
        for bad in ["", "a b", "a:", "a_b", "a\r\nb", "\u{e9}"] {
            assert_eq!(
                with(json!([one(bad, "")])),
                [".httpGet.httpHeaders[0].name"],
                "{bad:?}"
            );
        }
        for bad in ["a\r\nX: y", "\n", "\0", "\u{7f}"] {
            assert_eq!(
                with(json!([one("a", bad)])),
                [".httpGet.httpHeaders[0].value"],
                "{bad:?}"
            );
        }
        let many = |count: usize| json!(vec![one("a", "b"); count]);
        assert!(with(many(64)).is_empty());
        assert_eq!(with(many(65)), [".httpGet.httpHeaders"]);
        let long = |count: usize| json!([one("a", &"x".repeat(count))]);
        assert!(with(long(8191)).is_empty());
        assert_eq!(with(long(8192)), [".httpGet.httpHeaders"]);
    }
}
