//! Environment of a container, by one rule: `envFrom` in order, then `env` in order; the last one of a name wins, everywhere.
//!
//! Source: k8s.io/kubernetes/pkg/kubelet, `makeEnvironmentVariables`.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};

use super::super::meta;
use super::super::world::Work;
use super::data::Source;
use super::expand::{Vars, expand};
use super::field;
use super::one::exactly_one;
use super::room::Allowance;
use crate::kinds::is_env_name;

/// What a container's environment is.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// The variables.
    pub(super) vars: Vars,
    /// Of keys that are no names of variables, and so were left out; in words.
    pub(super) skipped: Vec<String>,
}

/// All variables, references resolved and `$(VAR)` expanded; in words what is missing.
pub(super) fn resolve(
    work: &Work<'_>,
    pod: &Pod,
    container: &Container,
    room: &mut Allowance,
) -> Result<Environment, String> {
    let mut env = Environment::default();
    for source in container.env_from.iter().flatten() {
        take_all(work, pod, source, &mut env, room)
            .map_err(|e| format!("envFrom of container {}: {e}", container.name))?;
    }
    for var in container.env.iter().flatten() {
        let text = var.value.as_deref().unwrap_or_default();
        let value = match &var.value_from {
            Some(source) if text.is_empty() => value_from(work, pod, container, source),
            Some(_) => Err("it has value and valueFrom: only one is allowed".to_owned()),
            None => expand(text, &env.vars).map(Some),
        };
        let value =
            value.map_err(|e| format!("variable {} of container {}: {e}", var.name, container.name))?;
        if let Some(value) = value {
            room.take(var.name.len() + value.len())?;
            env.vars.insert(var.name.clone(), value);
        }
    }
    let zero = env.vars.iter().find(|(_, value)| value.contains('\0'));
    if let Some((name, _)) = zero {
        let container = &container.name;
        return Err(format!(
            "variable {name} of container {container} has a zero byte, which no variable can: take it as a file"
        ));
    }
    Ok(env)
}

fn take_all(
    work: &Work<'_>,
    pod: &Pod,
    from: &EnvFromSource,
    env: &mut Environment,
    room: &mut Allowance,
) -> Result<(), String> {
    let (source, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
        (Some(r), None) => (Source::ConfigMap, &r.name, r.optional),
        (None, Some(r)) => (Source::Secret, &r.name, r.optional),
        _ => return Err("exactly one of configMapRef and secretRef is needed".to_owned()),
    };
    let Some(data) = source.texts(work, pod, name) else {
        return if optional == Some(true) {
            Ok(())
        } else {
            Err(source.missing(name))
        };
    };
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut bad = Vec::new();
    for (key, value) in data {
        let variable = format!("{prefix}{key}");
        room.take(variable.len() + value.len())?;
        if is_env_name(&variable) {
            env.vars.insert(variable, text(name, &key, value)?);
        } else {
            bad.push(variable);
        }
    }
    if !bad.is_empty() {
        let kind = match source {
            Source::ConfigMap => "configMap",
            Source::Secret => "secret",
        };
        env.skipped.push(format!(
            "Keys [{}] from the EnvFrom {kind} {}/{name} were skipped since they are considered invalid environment variable names.",
            bad.join(", "),
            meta::namespace(&pod.metadata),
        ));
    }
    Ok(())
}

/// `None`: it may be missing, and is.
fn value_from(
    work: &Work<'_>,
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
) -> Result<Option<String>, String> {
    exactly_one(from, &[])?;
    if let Some(r) = &from.field_ref {
        return field::value(work, pod, &r.field_path).map(Some);
    }
    if let Some(r) = &from.resource_field_ref {
        return field::resource(work, pod, Some(container), r).map(Some);
    }
    let (source, name, key, optional) = if let Some(r) = &from.config_map_key_ref {
        (Source::ConfigMap, &r.name, &r.key, r.optional)
    } else if let Some(r) = &from.secret_key_ref {
        (Source::Secret, &r.name, &r.key, r.optional)
    } else {
        return Err(
            "only fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef are supported".to_owned(),
        );
    };
    let optional = optional == Some(true);
    match source.text(work, pod, name, key) {
        Some(Some(value)) => text(name, key, value).map(Some),
        _ if optional => Ok(None),
        Some(None) => Err(source.missing_key(pod, name, key)),
        None => Err(source.missing(name)),
    }
}

/// The value as text: one with other bytes replaced would be a wrong key or certificate.
fn text(name: &str, key: &str, value: Vec<u8>) -> Result<String, String> {
    String::from_utf8(value).map_err(|_| {
        format!(
            "key {key} of {name:?} is not UTF-8 text, which a variable must be: take it as a file of a volume"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::super::limits::Limits;
    use super::super::super::world::{Object, Settings, World};
    use super::*;

    fn world() -> World {
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        let named = |name: &str| json!({"name": name, "namespace": "default"});
        for (name, data) in [
            ("common", json!({"REALM": "common.example", "ONLY": "c"})),
            ("amf", json!({"REALM": "amf.example", "zero": "\0"})),
        ] {
            let map = json!({"metadata": named(name), "data": data});
            let map = serde_json::from_value(map).unwrap();
            world.objects.put(Object::ConfigMap(Arc::new(map)));
        }
        // `//79` is base64 of three bytes that are no UTF-8, `b2s=` of `ok`.
        let secret = json!({"metadata": named("s"), "data": {"bad": "//79", "good": "b2s="}});
        let secret = serde_json::from_value(secret).unwrap();
        world.objects.put(Object::Secret(Arc::new(secret)));
        world
    }

    fn env(env_from: Value, env: Value) -> Result<Environment, String> {
        let world = world();
        let work = Work::new(&world, 0);
        let resources = json!({"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}});
        let container = json!({"name": "c", "envFrom": env_from, "env": env, "resources": resources});
        let metadata = json!({"name": "p", "namespace": "default", "labels": {"a": "x"}});
        let pod = json!({"metadata": metadata, "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let mut room = Allowance::new(&Limits::default());
        resolve(&work, &pod, &pod.spec.as_ref().unwrap().containers[0], &mut room)
    }

    #[test]
    fn the_last_source_wins_in_values_and_in_references() {
        let maps = json!([{"configMapRef": {"name": "common"}}, {"configMapRef": {"name": "x", "optional": true}},
            {"prefix": "P_", "configMapRef": {"name": "common"}}]);
        let vars = json!([{"name": "PEER", "value": "sip:$(REALM)"}, {"name": "REALM", "value": "own"},
            {"name": "REALM", "value": "$(REALM)-2"}, {"name": "PEER2", "value": "$(REALM) $(LATER) $$(REALM)"},
            {"name": "LATER", "value": ""}]);
        let env = env(maps, vars).unwrap();
        for (name, value) in [
            ("PEER", "sip:common.example"),
            ("REALM", "own-2"),
            ("PEER2", "own-2 $(LATER) $(REALM)"),
            ("LATER", ""),
            ("P_REALM", "common.example"),
            ("ONLY", "c"),
        ] {
            assert_eq!(env.vars[name], value, "{name}");
        }
        assert!(env.skipped.is_empty());
        // Command and arguments take them from the same place.
        assert_eq!(expand("$(REALM)", &env.vars).unwrap(), "own-2");
    }

    #[test]
    fn of_two_config_maps_the_second_wins() {
        let maps = json!([{"configMapRef": {"name": "amf"}}, {"configMapRef": {"name": "common"}}]);
        assert!(env(maps.clone(), json!([])).unwrap_err().contains("zero byte"));
        let override_zero = json!([{"name": "zero", "value": "0"}]);
        let vars = env(maps, override_zero).unwrap().vars;
        assert_eq!(vars["REALM"], "common.example");
    }

    #[test]
    fn what_is_missing_is_said_as_kubernetes_says_it() {
        let key = |kind: &str, name: &str, key: &str, optional: bool| json!([{"name": "A", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]);
        for (from, vars, part) in [
            (
                json!([{"configMapRef": {"name": "x"}}]),
                json!([]),
                "configmap \"x\" not found",
            ),
            (
                json!([{"secretRef": {"name": "x"}}]),
                json!([]),
                "secret \"x\" not found",
            ),
            (
                json!([]),
                key("configMapKeyRef", "x", "k", false),
                "configmap \"x\" not found",
            ),
            (
                json!([]),
                key("secretKeyRef", "s", "k", false),
                "couldn't find key k in Secret default/s",
            ),
            (json!([]), key("secretKeyRef", "s", "bad", false), "not UTF-8"),
        ] {
            let error = env(from, vars).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for name in ["x", "s"] {
            let vars = env(json!([]), key("secretKeyRef", name, "k", true)).unwrap().vars;
            assert!(vars.is_empty());
        }
        let vars = env(json!([]), key("secretKeyRef", "s", "good", false))
            .unwrap()
            .vars;
        assert_eq!(vars["A"], "ok");
    }

    #[test]
    fn of_two_sources_none_is_taken() {
        let field = json!({"fieldPath": "metadata.name"});
        let key = json!({"name": "s", "key": "good"});
        for from in [
            json!({"valueFrom": {"fieldRef": field, "secretKeyRef": key}}),
            json!({"valueFrom": {"fieldRef": field}, "value": "x"}),
            json!({"valueFrom": {}}),
        ] {
            let mut var = from.clone();
            var["name"] = json!("A");
            let error = env(json!([]), json!([var])).unwrap_err();
            assert!(error.contains("variable A of container c"), "{error}");
        }
        for from in [
            json!({}),
            json!({"configMapRef": {"name": "common"}, "secretRef": {"name": "s"}}),
        ] {
            let error = env(json!([from]), json!([])).unwrap_err();
            assert!(error.contains("exactly one of configMapRef"), "{error}");
        }
    }

    #[test]
    fn keys_that_are_no_names_are_skipped_and_told() {
        let maps = json!([{"prefix": "a=", "configMapRef": {"name": "common"}}]);
        let env = env(maps, json!([])).unwrap();
        assert!(env.vars.is_empty());
        assert!(env.skipped[0].contains("Keys [a=ONLY, a=REALM] from the EnvFrom configMap default/common"));
    }

    #[test]
    fn a_container_is_told_of_its_own_pod() {
        let field = |path: &str| json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.labels['a']", "x"),
            ("spec.serviceAccountName", "default"),
        ] {
            assert_eq!(env(json!([]), field(path)).unwrap().vars["A"], value);
        }
        assert!(
            env(json!([]), field("spec.x"))
                .unwrap_err()
                .contains("not supported")
        );
        let resource = |resource: &str, divisor: &str| {
            let r = json!({"resource": resource, "divisor": divisor});
            let vars = env(
                json!([]),
                json!([{"name": "A", "valueFrom": {"resourceFieldRef": r}}]),
            );
            vars.unwrap().vars["A"].clone()
        };
        assert_eq!(resource("requests.cpu", "1"), "2");
        assert_eq!(resource("requests.cpu", "1m"), "1500");
        assert_eq!(resource("limits.memory", "1Mi"), "1024");
        assert_eq!(resource("limits.memory", "0"), "1073741824");
        assert_eq!(resource("requests.ephemeral-storage", "1"), "0");
    }
}
