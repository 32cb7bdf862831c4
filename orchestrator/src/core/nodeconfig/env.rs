//! Environment of a container: downward API, ConfigMaps, Secrets, and `$(VAR)` as in Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};

use super::super::world::{Key, Work};
use super::super::{meta, pods};

/// All variables in order, references resolved and `$(VAR)` expanded; in words what is missing.
pub(super) fn resolve(
    work: &Work<'_>,
    pod: &Pod,
    container: &Container,
) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let (data, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(r), _) => (config_map(work, pod, &r.name), &r.name, r.optional),
            (None, Some(r)) => (secret(work, pod, &r.name), &r.name, r.optional),
            (None, None) => continue,
        };
        match data {
            Some(data) => all.extend(data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v))),
            None if optional == Some(true) => {}
            None => {
                return Err(format!(
                    "container `{}` takes its environment from `{name}`, which does not exist",
                    container.name
                ));
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (None, Some(source)) => value_from(work, pod, source)
                .map_err(|e| format!("variable {} of container `{}`: {e}", var.name, container.name))?,
            (value, _) => Some(expand(value.as_deref().unwrap_or_default(), &all)),
        };
        if let Some(value) = value {
            all.retain(|(name, _)| *name != var.name);
            all.push((var.name.clone(), value));
        }
    }
    Ok(all)
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign; an unknown name stays as it is.
pub(super) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.iter().find(|(n, _)| n == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

fn value_from(work: &Work<'_>, pod: &Pod, source: &EnvVarSource) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_of(pod, &field.field_path).map(Some);
    }
    let (data, name, key, optional) = if let Some(r) = &source.config_map_key_ref {
        (config_map(work, pod, &r.name), &r.name, &r.key, r.optional)
    } else if let Some(r) = &source.secret_key_ref {
        (secret(work, pod, &r.name), &r.name, &r.key, r.optional)
    } else {
        return Err("only fieldRef, configMapKeyRef and secretKeyRef are supported".to_owned());
    };
    match data.and_then(|mut d| d.remove(key)) {
        None if optional != Some(true) => Err(format!("`{name}` with key `{key}` does not exist")),
        value => Ok(value),
    }
}

fn field_of(pod: &Pod, path: &str) -> Result<String, String> {
    let m = &pod.metadata;
    let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let value = match path {
        "metadata.name" => meta::name(m).to_owned(),
        "metadata.namespace" => meta::namespace(m).to_owned(),
        "metadata.uid" => meta::uid(m).to_owned(),
        "spec.nodeName" => pods::node(pod).unwrap_or_default().to_owned(),
        "spec.serviceAccountName" => pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "status.podIP" | "status.podIPs" => pods::address(pod).map(|a| a.to_string()).unwrap_or_default(),
        "status.hostIP" => pod
            .status
            .as_ref()
            .and_then(|s| s.host_ip.clone())
            .unwrap_or_default(),
        _ => match (quoted("metadata.labels['"), quoted("metadata.annotations['")) {
            (Some(key), _) => meta::label(m, key).unwrap_or_default().to_owned(),
            (_, Some(key)) => meta::annotation(m, key).unwrap_or_default().to_owned(),
            _ => return Err(format!("field `{path}` is not supported")),
        },
    };
    Ok(value)
}

/// A ConfigMap's texts.
pub(super) fn config_map(work: &Work<'_>, pod: &Pod, name: &str) -> Option<BTreeMap<String, String>> {
    let map = work.get::<ConfigMap>(&Key::new(meta::namespace(&pod.metadata), name))?;
    Some(map.data.clone().unwrap_or_default())
}

/// A Secret's texts (bytes that are no UTF-8 are replaced).
pub(super) fn secret(work: &Work<'_>, pod: &Pod, name: &str) -> Option<BTreeMap<String, String>> {
    let secret = work.get::<Secret>(&Key::new(meta::namespace(&pod.metadata), name))?;
    let encoded = secret.data.iter().flatten();
    let mut all: BTreeMap<String, String> = encoded
        .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned()))
        .collect();
    all.extend(secret.string_data.clone().unwrap_or_default());
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_as_in_kubernetes() {
        let env = [("A".to_owned(), "1".to_owned())];
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
