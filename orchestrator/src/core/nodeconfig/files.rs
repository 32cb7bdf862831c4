//! The files of a volume: keys of ConfigMaps and Secrets, and what a pod is told of itself.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{DEFAULT_FILE_MODE, Volume, VolumeFile};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource};

use super::super::world::Work;
use super::data::Source;
use super::field;
use super::one::exactly_one;
use super::room::Allowance;

/// Files by path within the volume.
pub(super) type Files = BTreeMap<String, VolumeFile>;

/// Which keys of which object.
pub(super) struct Keys<'a> {
    pub(super) source: Source,
    pub(super) name: &'a str,
    /// All keys if there are none.
    pub(super) items: Option<&'a [KeyToPath]>,
    /// Whatever is missing is left out.
    pub(super) optional: bool,
}

/// A mode as the API lets it in; none is the default.
pub(super) fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(DEFAULT_FILE_MODE)
}

/// All keys, or the chosen items. A key that is missing is an error unless everything may be missing.
pub(super) fn keyed(
    work: &Work<'_>,
    pod: &Pod,
    keys: &Keys<'_>,
    mode: u32,
    room: &mut Allowance,
) -> Result<Files, String> {
    let items = keys.items.unwrap_or_default();
    let mut files = Files::new();
    if items.is_empty() {
        let Some(data) = keys.source.files(work, pod, keys.name) else {
            return if keys.optional {
                Ok(files)
            } else {
                Err(keys.source.missing(keys.name))
            };
        };
        for (key, data) in data {
            room.take(key.len() + data.len())?;
            files.insert(key, VolumeFile { data, mode });
        }
    }
    // One key may become several files.
    for item in items {
        let mode = item.mode.map_or(mode, |own| self::mode(Some(own)));
        match keys.source.file(work, pod, keys.name, &item.key) {
            Some(Some(data)) => {
                room.take(item.path.len() + data.len())?;
                files.insert(item.path.clone(), VolumeFile { data, mode });
            }
            _ if keys.optional => {}
            Some(None) => return Err(keys.source.missing_key(pod, keys.name, &item.key)),
            None => return Err(keys.source.missing(keys.name)),
        }
    }
    Ok(files)
}

/// What the pod is told of itself.
pub(super) fn downward(
    work: &Work<'_>,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: u32,
    room: &mut Allowance,
) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        exactly_one(item, &["path", "mode"]).map_err(|e| format!("file {:?}: {e}", item.path))?;
        let text = if let Some(r) = &item.field_ref {
            field::value(work, pod, &r.field_path)?
        } else if let Some(r) = &item.resource_field_ref {
            field::resource(work, pod, None, r)?
        } else {
            return Err(format!("file {:?} has no source", item.path));
        };
        room.take(item.path.len() + text.len())?;
        let file = VolumeFile {
            data: text.into_bytes(),
            mode: item.mode.map_or(mode, |own| self::mode(Some(own))),
        };
        files.insert(item.path.clone(), file);
    }
    Ok(files)
}

/// Several sources in one volume; a later one wins.
pub(super) fn projected(
    work: &Work<'_>,
    pod: &Pod,
    from: &ProjectedVolumeSource,
    room: &mut Allowance,
) -> Result<Volume, String> {
    let mode = mode(from.default_mode);
    let mut files = Files::new();
    let mut secret = false;
    for (i, source) in from.sources.iter().flatten().enumerate() {
        exactly_one(source, &[]).map_err(|e| format!("source {i}: {e}"))?;
        if let Some(r) = &source.config_map {
            let keys = Keys {
                source: Source::ConfigMap,
                name: &r.name,
                items: r.items.as_deref(),
                optional: r.optional == Some(true),
            };
            files.extend(keyed(work, pod, &keys, mode, room)?);
        } else if let Some(r) = &source.secret {
            let keys = Keys {
                source: Source::Secret,
                name: &r.name,
                items: r.items.as_deref(),
                optional: r.optional == Some(true),
            };
            secret = true;
            files.extend(keyed(work, pod, &keys, mode, room)?);
        } else if let Some(r) = &source.downward_api {
            files.extend(downward(
                work,
                pod,
                r.items.as_deref().unwrap_or_default(),
                mode,
                room,
            )?);
        } else {
            return Err("only configMap, secret and downwardAPI can be projected".to_owned());
        }
    }
    Ok(if secret {
        Volume::SecretFiles(files)
    } else {
        Volume::Files(files)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::super::limits::Limits;
    use super::super::super::world::{Object, Settings, World};
    use super::super::volume;
    use super::*;

    /// The files of a pod's only volume, as `path mode content`.
    fn files(volume: Value) -> Result<Vec<String>, String> {
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        // `//79` is base64 of three bytes that are no UTF-8, `b2s=` of `ok`.
        let metadata = json!({"name": "x", "namespace": "default", "labels": {"a": "b", "c": "d"}});
        let map = json!({"metadata": metadata, "data": {"text": "t"}, "binaryData": {"bytes": "//79"}});
        let secret = json!({"metadata": metadata, "data": {"key": "b2s="}});
        world
            .objects
            .put(Object::ConfigMap(Arc::new(serde_json::from_value(map).unwrap())));
        world
            .objects
            .put(Object::Secret(Arc::new(serde_json::from_value(secret).unwrap())));
        let mut named = volume;
        named["name"] = json!("v");
        let resources = json!({"limits": {"cpu": "1500m"}});
        let containers = json!([{"name": "c", "resources": resources}]);
        let pod = json!({"metadata": metadata, "spec": {"containers": containers, "volumes": [named]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let work = Work::new(&world, 0);
        let mut all = volume::all(&work, &pod, &mut Allowance::new(&Limits::default()))?;
        let shown = |(path, file): (&String, &VolumeFile)| {
            format!("{path} {:o} {:?}", file.mode, String::from_utf8_lossy(&file.data))
        };
        let volume = all.remove("v").unwrap();
        Ok(volume.files().unwrap().iter().map(shown).collect())
    }

    #[test]
    fn keys_become_files_with_modes_and_any_bytes() {
        let all = files(json!({"configMap": {"name": "x", "defaultMode": 0o440}})).unwrap();
        assert_eq!(all, ["bytes 440 \"\u{fffd}\u{fffd}\u{fffd}\"", "text 440 \"t\""]);
        let items = json!([{"key": "text", "path": "a/b"}, {"key": "text", "path": "c", "mode": 0o400}]);
        let some = files(json!({"configMap": {"name": "x", "items": items}})).unwrap();
        assert_eq!(some, ["a/b 644 \"t\"", "c 400 \"t\""]);
        let secret = files(json!({"secret": {"secretName": "x"}})).unwrap();
        assert_eq!(secret, ["key 644 \"ok\""]);
    }

    #[test]
    fn what_is_missing_is_an_error_unless_it_may_be() {
        let items = json!([{"key": "other", "path": "o"}]);
        let with = |name: &str, optional: bool| {
            files(json!({"configMap": {"name": name, "items": items, "optional": optional}}))
        };
        let error = with("x", false).unwrap_err();
        assert!(
            error.contains("couldn't find key other in ConfigMap default/x"),
            "{error}"
        );
        assert!(
            with("y", false)
                .unwrap_err()
                .contains("configmap \"y\" not found")
        );
        for name in ["x", "y"] {
            assert!(with(name, true).unwrap().is_empty());
        }
    }

    #[test]
    fn a_volume_of_two_kinds_is_none_of_them() {
        let map = json!({"name": "x"});
        let host = json!({"path": "/tmp"});
        let field = json!({"fieldPath": "metadata.name"});
        let cpu = json!({"containerName": "c", "resource": "limits.cpu"});
        let item = json!({"path": "p", "fieldRef": field, "resourceFieldRef": cpu});
        for bad in [
            json!({}),
            json!({"configMap": map, "hostPath": host}),
            json!({"emptyDir": {}, "hostPath": host}),
            json!({"image": {"reference": "x"}, "hostPath": host}),
            json!({"csi": {"driver": "x"}, "hostPath": host}),
            json!({"ephemeral": {}, "persistentVolumeClaim": {"claimName": "x"}, "hostPath": host}),
            json!({"csi": {"driver": "x"}}),
            json!({"downwardAPI": {"items": [item]}}),
            json!({"projected": {"sources": [{"configMap": map, "secret": map}]}}),
            json!({"projected": {"sources": [{"configMap": map, "serviceAccountToken": {"path": "t"}}]}}),
            json!({"projected": {"sources": [{}]}}),
        ] {
            let error = files(bad.clone()).unwrap_err();
            assert!(
                error.contains("volume \"v\"") || error.contains("volume `v`"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn several_sources_are_one_volume() {
        let labels = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
        let cpu = json!({"path": "cpu", "mode": 0o400,
            "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}});
        let own = json!({"items": [labels, cpu]});
        let sources = json!([{"configMap": {"name": "x", "items": [{"key": "text", "path": "m"}]}},
            {"secret": {"name": "x"}}, {"downwardAPI": own}]);
        let all = files(json!({"projected": {"sources": sources, "defaultMode": 0o444}})).unwrap();
        let expected = [
            "cpu 400 \"1500\"",
            "key 444 \"ok\"",
            r#"labels 444 "a=\"b\"\nc=\"d\"""#,
            "m 444 \"t\"",
        ];
        assert_eq!(all, expected);
        let alone = files(json!({"downwardAPI": own})).unwrap();
        assert_eq!(alone.len(), 2);
    }
}
