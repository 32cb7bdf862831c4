//! Names by RFC 1123, as Kubernetes restricts them.

fn alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// The longest DNS label (RFC 1123), in bytes.
const LABEL_BYTES: usize = 63;
/// The longest DNS name as Kubernetes takes it, in bytes.
const SUBDOMAIN_BYTES: usize = 253;

/// What is wrong with a name that is no DNS label.
pub fn label_problem(name: &str) -> String {
    problem(name, "label", LABEL_BYTES)
}

/// What is wrong with a name that is no DNS name.
pub fn subdomain_problem(name: &str) -> String {
    problem(name, "name", SUBDOMAIN_BYTES)
}

fn problem(name: &str, what: &str, most: usize) -> String {
    if name.len() > most {
        return format!(
            "{name:?} has {} characters, a DNS {what} (RFC 1123) has at most {most}",
            name.len()
        );
    }
    let dot = if most == SUBDOMAIN_BYTES { " and ." } else { "" };
    format!(
        "{name:?} is not a DNS {what} (RFC 1123): a-z, 0-9, -{dot}, alphanumeric at both ends, at most {most}"
    )
}

/// At most 63 of `a-z0-9-`, alphanumeric at both ends.
pub fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    bytes.len() <= LABEL_BYTES
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
}

/// Labels joined by dots, 253 characters at most. A label may be longer than 63 here, as in Kubernetes.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_BYTES
        && name.split('.').all(|part| {
            let b = part.as_bytes();
            b.first().is_some_and(|b| alphanumeric(*b))
                && b.last().is_some_and(|b| alphanumeric(*b))
                && b.iter().all(|b| alphanumeric(*b) || *b == b'-')
        })
}

/// A label's value: empty, or at most 63 of `A-Za-z0-9-_.`, alphanumeric at both ends.
pub fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// A name of an environment variable: printable ASCII without `=`.
pub fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=')
}

/// A label's or annotation's key: a name with an optional DNS prefix and a slash.
pub fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && !name.is_empty() && is_label_value(name),
        None => !key.is_empty() && is_label_value(key),
    }
}
