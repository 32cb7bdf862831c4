//! Rules on how a pod is called and how it asks for others.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `ValidatePodSpec`, `validatePodDNSConfig`, `ValidateHostAliases`.

use std::net::IpAddr;

use serde_json::Value;

use super::FieldError;
use super::names::{is_dns_label, is_dns_subdomain};
use super::path::{at, list, text};

type Errors = Vec<FieldError>;

const POLICIES: &[&str] = &["", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// The spec at `path`.
pub(super) fn check(spec: &Value, path: &str, errors: &mut Errors) {
    for field in ["hostname", "subdomain"] {
        let name = text(spec, &format!("/{field}"));
        if !name.is_empty() && !is_dns_label(name) {
            let message = format!("{name:?} is not a DNS label (RFC 1123)");
            errors.push(FieldError::invalid(format!("{path}.{field}"), message));
        }
    }
    for (i, alias) in list(spec, "/hostAliases").iter().enumerate() {
        let here = format!("{path}.hostAliases[{i}]");
        address(at(alias, "/ip"), format!("{here}.ip"), errors);
        for (j, name) in list(alias, "/hostnames").iter().enumerate() {
            if !name.as_str().is_some_and(is_dns_subdomain) {
                let message = format!("{name} is not a DNS name (RFC 1123)");
                errors.push(FieldError::invalid(format!("{here}.hostnames[{j}]"), message));
            }
        }
    }
    dns(spec, path, errors);
}

fn dns(spec: &Value, path: &str, errors: &mut Errors) {
    let policy = text(spec, "/dnsPolicy");
    if !POLICIES.contains(&policy) {
        let message = format!("{policy:?} is not supported: use {}", POLICIES[1..].join(", "));
        errors.push(FieldError::invalid(format!("{path}.dnsPolicy"), message));
    }
    let here = format!("{path}.dnsConfig");
    let servers = list(spec, "/dnsConfig/nameservers");
    if policy == "None" && servers.is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::invalid(format!("{here}.nameservers"), message));
    }
    if servers.len() > MAX_NAMESERVERS {
        let message = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(format!("{here}.nameservers"), message));
    }
    for (i, server) in servers.iter().enumerate() {
        address(server, format!("{here}.nameservers[{i}]"), errors);
    }
    let searches = list(spec, "/dnsConfig/searches");
    if searches.len() > MAX_SEARCHES {
        let message = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(format!("{here}.searches"), message));
    }
    for (i, search) in searches.iter().enumerate() {
        let domain = search.as_str().unwrap_or_default();
        if domain != "." && !is_dns_subdomain(domain.trim_end_matches('.')) {
            let message = format!("{search} is not a DNS name (RFC 1123)");
            errors.push(FieldError::invalid(format!("{here}.searches[{i}]"), message));
        }
    }
    for (i, option) in list(spec, "/dnsConfig/options").iter().enumerate() {
        let words = [text(option, "/name"), text(option, "/value")];
        let word = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if words[0].is_empty() || !words.into_iter().all(word) {
            let message = "must be a name, and a value without spaces";
            errors.push(FieldError::invalid(format!("{here}.options[{i}]"), message));
        }
    }
}

fn address(value: &Value, field: String, errors: &mut Errors) {
    if value.as_str().is_none_or(|ip| ip.parse::<IpAddr>().is_err()) {
        errors.push(FieldError::invalid(
            field,
            format!("{value} must be a valid IP address"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_file_under_etc_could_say_is_refused() {
        let refused = |spec: Value| {
            let mut errors = Errors::new();
            check(&spec, "s", &mut errors);
            errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        for good in [
            json!({"hostname": "h", "subdomain": "s", "dnsPolicy": "Default"}),
            json!({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a.b", "c"]}]}),
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["a.b."],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
        ] {
            assert!(refused(good.clone()).is_empty(), "{good}");
        }
        for (bad, field) in [
            (json!({"hostname": "a.b"}), "s.hostname"),
            (json!({"hostAliases": [{"ip": "x"}]}), "s.hostAliases[0].ip"),
            (
                json!({"hostAliases": [{"ip": "::1", "hostnames": ["a\nb"]}]}),
                "s.hostAliases[0].hostnames[0]",
            ),
            (json!({"dnsPolicy": "x"}), "s.dnsPolicy"),
            (json!({"dnsPolicy": "None"}), "s.dnsConfig.nameservers"),
            (
                json!({"dnsConfig": {"nameservers": ["x"]}}),
                "s.dnsConfig.nameservers[0]",
            ),
            (
                json!({"dnsConfig": {"searches": ["a b"]}}),
                "s.dnsConfig.searches[0]",
            ),
            (
                json!({"dnsConfig": {"options": [{"name": "a b"}]}}),
                "s.dnsConfig.options[0]",
            ),
        ] {
            assert_eq!(refused(bad.clone()), [field], "{bad}");
        }
    }
}
