//! Environment of a container: downward API, ConfigMaps, Secrets, and `$(VAR)` as in Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, KeyToPath, Pod, Secret};

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
            Some(data) => {
                for (key, value) in data {
                    let value = utf8(name, &key, value)
                        .map_err(|e| format!("environment of container `{}`: {e}", container.name))?;
                    all.push((format!("{prefix}{key}"), value));
                }
            }
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
        value => value.map(|value| utf8(name, key, value)).transpose(),
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

/// Values by key, as bytes: of a Secret, or of a ConfigMap.
type Data = BTreeMap<String, Vec<u8>>;

/// A ConfigMap's texts; variables do not see its `binaryData`.
fn config_map(work: &Work<'_>, pod: &Pod, name: &str) -> Option<Data> {
    let map = work.get::<ConfigMap>(&Key::new(meta::namespace(&pod.metadata), name))?;
    let texts = map.data.iter().flatten();
    Some(texts.map(|(k, v)| (k.clone(), v.clone().into_bytes())).collect())
}

fn secret(work: &Work<'_>, pod: &Pod, name: &str) -> Option<Data> {
    let secret = work.get::<Secret>(&Key::new(meta::namespace(&pod.metadata), name))?;
    let values = secret.data.iter().flatten();
    Some(values.map(|(k, v)| (k.clone(), v.0.clone())).collect())
}

/// The value as text. Nodes are told texts only, and one with other bytes replaced would be a wrong key or certificate.
fn utf8(name: &str, key: &str, value: Vec<u8>) -> Result<String, String> {
    String::from_utf8(value).map_err(|_| {
        format!("key `{key}` of `{name}` is not UTF-8 text, which is all that Gantry delivers: encode it, in base64 for example")
    })
}

/// The files of a volume with a ConfigMap, all of it or the chosen items; `None` if it does not exist.
pub(super) fn config_map_files(
    work: &Work<'_>,
    pod: &Pod,
    name: &str,
    items: &Option<Vec<KeyToPath>>,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let Some(mut data) = config_map(work, pod, name) else {
        return Ok(None);
    };
    let map = work.get::<ConfigMap>(&Key::new(meta::namespace(&pod.metadata), name));
    let binary = map.iter().filter_map(|m| m.binary_data.as_ref()).flatten();
    data.extend(binary.map(|(k, v)| (k.clone(), v.0.clone())));
    files(name, data, items).map(Some)
}

/// As [`config_map_files`], with a Secret.
pub(super) fn secret_files(
    work: &Work<'_>,
    pod: &Pod,
    name: &str,
    items: &Option<Vec<KeyToPath>>,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let data = secret(work, pod, name);
    data.map(|data| files(name, data, items)).transpose()
}

fn files(
    name: &str,
    mut data: Data,
    items: &Option<Vec<KeyToPath>>,
) -> Result<BTreeMap<String, String>, String> {
    let chosen: Vec<(String, String, Vec<u8>)> = match items {
        None => data
            .into_iter()
            .map(|(key, value)| (key.clone(), key, value))
            .collect(),
        Some(items) => items
            .iter()
            .filter_map(|i| Some((i.path.clone(), i.key.clone(), data.remove(&i.key)?)))
            .collect(),
    };
    let texts = chosen
        .into_iter()
        .map(|(path, key, value)| Ok((path, utf8(name, &key, value)?)));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::super::world::{Object, Settings, World};
    use super::*;

    fn world(objects: impl IntoIterator<Item = Object>) -> World {
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        objects.into_iter().for_each(|object| world.objects.put(object));
        world
    }

    /// `//79` is base64 of two bytes that are no UTF-8, `b2s=` of `ok`.
    #[test]
    fn bytes_that_are_no_text_are_named_and_never_changed() {
        let metadata = json!({"name": "x", "namespace": "default"});
        let secret = json!({"metadata": metadata, "data": {"bad": "//79", "good": "b2s="}});
        let map = json!({"metadata": metadata, "data": {"text": "t"}, "binaryData": {"bad": "//79", "good": "b2s="}});
        let world = world([
            Object::Secret(Arc::new(serde_json::from_value(secret).unwrap())),
            Object::ConfigMap(Arc::new(serde_json::from_value(map).unwrap())),
        ]);
        let work = Work::new(&world, 0);
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        let bad = secret_files(&work, &pod, "x", &None).unwrap_err();
        assert!(bad.contains("`bad` of `x`"), "{bad}");
        assert!(
            config_map_files(&work, &pod, "x", &None)
                .unwrap_err()
                .contains("`bad`")
        );
        let items: Option<Vec<KeyToPath>> =
            serde_json::from_value(json!([{"key": "good", "path": "p"}])).unwrap();
        let picked = BTreeMap::from([("p".to_owned(), "ok".to_owned())]);
        assert_eq!(
            secret_files(&work, &pod, "x", &items).unwrap(),
            Some(picked.clone())
        );
        assert_eq!(config_map_files(&work, &pod, "x", &items).unwrap(), Some(picked));
        let env = |key: &str| {
            let from = json!({"secretKeyRef": {"name": "x", "key": key}});
            let container = json!({"name": "c", "env": [{"name": "A", "valueFrom": from}]});
            resolve(&work, &pod, &serde_json::from_value(container).unwrap())
        };
        assert_eq!(env("good").unwrap(), [("A".to_owned(), "ok".to_owned())]);
        assert!(env("bad").unwrap_err().contains("`bad` of `x`"));
    }

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
