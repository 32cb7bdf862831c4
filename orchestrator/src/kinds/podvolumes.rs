//! Rules on volumes and where containers mount them.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `ValidateVolumes`, `ValidateVolumeMounts`.

use std::collections::HashSet;

use serde_json::Value;

use super::path::{at, list, text};
use super::{FieldError, podenv};
use crate::quantity;

type Errors = Vec<FieldError>;

/// Sources of a volume that exist.
pub(super) const SOURCES: &[&str] = &[
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
    "emptyDir",
    "hostPath",
    "persistentVolumeClaim",
];

/// Sources of a projected volume that exist.
const PROJECTED: &[&str] = &["configMap", "secret", "downwardAPI"];

/// What a path of the host may have to be.
const HOST_PATH_TYPES: &[&str] = &[
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
    "CharDevice",
    "BlockDevice",
];

/// The volumes of the spec at `path`.
pub(super) fn check(spec: &Value, path: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, volume) in list(spec, "/volumes").iter().enumerate() {
        let here = format!("{path}.volumes[{i}]");
        let name = text(volume, "/name");
        if !names.insert(name) {
            errors.push(invalid(
                format!("{here}.name"),
                format!("{name:?} is there twice"),
            ));
        }
        source(volume, &here, errors);
        for source in ["configMap", "secret"] {
            let from = at(volume, &format!("/{source}"));
            let here = format!("{here}.{source}");
            mode(from, "defaultMode", &here, errors);
            items(from, &here, errors);
        }
        downward(at(volume, "/downwardAPI"), &format!("{here}.downwardAPI"), errors);
        projected(at(volume, "/projected"), &format!("{here}.projected"), errors);
        empty_dir(at(volume, "/emptyDir"), &format!("{here}.emptyDir"), errors);
        host_path(at(volume, "/hostPath"), &format!("{here}.hostPath"), errors);
        claim(
            at(volume, "/persistentVolumeClaim"),
            &format!("{here}.persistentVolumeClaim"),
            errors,
        );
    }
}

fn invalid(field: String, message: impl Into<String>) -> FieldError {
    FieldError::invalid(field, message)
}

/// Exactly one, and one that exists: of several, one would be taken and nobody had said which.
fn source(volume: &Value, here: &str, errors: &mut Errors) {
    let given = volume.as_object().into_iter().flatten();
    let given = given.filter(|(key, value)| *key != "name" && !value.is_null());
    let given: Vec<&String> = given.map(|(key, _)| key).collect();
    if given.is_empty() {
        errors.push(FieldError {
            field: here.to_owned(),
            message: format!("a source is needed: use one of {}", SOURCES.join(", ")),
            reason: "FieldValueRequired",
        });
    }
    for (i, source) in given.iter().enumerate() {
        let message = if i > 0 {
            format!(
                "may not specify more than 1 volume type: it has {} already",
                given[0]
            )
        } else if SOURCES.contains(&source.as_str()) {
            continue;
        } else {
            format!("is not supported: use one of {}", SOURCES.join(", "))
        };
        errors.push(FieldError {
            field: format!("{here}.{source}"),
            message,
            reason: "FieldValueForbidden",
        });
    }
}

fn empty_dir(from: &Value, here: &str, errors: &mut Errors) {
    let size = at(from, "/sizeLimit");
    if size.as_str().is_some_and(|q| quantity::units(q).is_none()) {
        let message = format!("{size} is not a quantity that can be had: write for example 128Mi");
        errors.push(invalid(format!("{here}.sizeLimit"), message));
    }
    let medium = text(from, "/medium");
    if !["", "Memory"].contains(&medium) {
        let message = format!("{medium:?} is not supported: use Memory, or leave it out");
        errors.push(invalid(format!("{here}.medium"), message));
    }
}

/// Source: k8s.io/kubernetes/pkg/apis/core/validation, `validatePersistentClaimVolumeSource`.
fn claim(from: &Value, here: &str, errors: &mut Errors) {
    if !from.is_null() && text(from, "/claimName").is_empty() {
        let message = "the name of a PersistentVolumeClaim must be given";
        errors.push(FieldError::required(format!("{here}.claimName"), message));
    }
}

/// Source: k8s.io/kubernetes/pkg/apis/core/validation, `validateHostPathVolumeSource`.
fn host_path(from: &Value, here: &str, errors: &mut Errors) {
    if from.is_null() {
        return;
    }
    let path = text(from, "/path");
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let message = format!("{path:?} is not an absolute path without '..'");
        errors.push(invalid(format!("{here}.path"), message));
    }
    let kind = text(from, "/type");
    if !kind.is_empty() && !HOST_PATH_TYPES.contains(&kind) {
        let message = format!("{kind:?} is not one of {}", HOST_PATH_TYPES.join(", "));
        errors.push(invalid(format!("{here}.type"), message));
    }
}

/// Keys and the files that they become.
fn items(from: &Value, here: &str, errors: &mut Errors) {
    for (i, item) in list(from, "/items").iter().enumerate() {
        let here = format!("{here}.items[{i}]");
        if text(item, "/key").is_empty() {
            errors.push(invalid(format!("{here}.key"), "must be given"));
        }
        file(item, &here, errors);
    }
}

/// Path and mode of one file.
fn file(item: &Value, here: &str, errors: &mut Errors) {
    if let Some(why) = bad_path(text(item, "/path")) {
        errors.push(invalid(format!("{here}.path"), why));
    }
    mode(item, "mode", here, errors);
}

/// Why this is no file within a volume.
fn bad_path(path: &str) -> Option<&'static str> {
    let parts = || path.split('/');
    if path.is_empty() {
        Some("must be given")
    } else if path.starts_with('/') {
        Some("must be a relative path")
    } else if parts().any(|part| part == "..") {
        Some("must not contain '..'")
    } else if path.starts_with("..") {
        Some("must not start with '..'")
    } else if parts().any(|part| part.is_empty() || part == "." || part.len() > 255) || path.contains('\0') {
        Some("must be a path of names, each of 1 to 255 bytes")
    } else {
        None
    }
}

fn mode(from: &Value, field: &str, here: &str, errors: &mut Errors) {
    let mode = at(from, &format!("/{field}"));
    if mode.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let message = format!("{mode}: must be a number between 0 and 0777 (octal), both inclusive");
        errors.push(invalid(format!("{here}.{field}"), message));
    }
}

fn downward(from: &Value, here: &str, errors: &mut Errors) {
    mode(from, "defaultMode", here, errors);
    for (i, item) in list(from, "/items").iter().enumerate() {
        let here = format!("{here}.items[{i}]");
        file(item, &here, errors);
        match (at(item, "/fieldRef"), at(item, "/resourceFieldRef")) {
            (Value::Null, Value::Null) => {
                errors.push(invalid(here, "one of fieldRef and resourceFieldRef is required"));
            }
            (field, Value::Null) => podenv::file_field_ref(field, &format!("{here}.fieldRef"), errors),
            (Value::Null, resource) => {
                let here = format!("{here}.resourceFieldRef");
                if text(resource, "/containerName").is_empty() {
                    errors.push(invalid(format!("{here}.containerName"), "must be given"));
                }
                podenv::resource_ref(resource, &here, errors);
            }
            _ => errors.push(invalid(
                here,
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
        }
    }
}

fn projected(from: &Value, here: &str, errors: &mut Errors) {
    mode(from, "defaultMode", here, errors);
    for (i, source) in list(from, "/sources").iter().enumerate() {
        let here = format!("{here}.sources[{i}]");
        let named: Vec<&String> = source.as_object().into_iter().flatten().map(|(k, _)| k).collect();
        match named.as_slice() {
            [one] if PROJECTED.contains(&one.as_str()) => {
                let from = at(source, &format!("/{one}"));
                let here = format!("{here}.{one}");
                match one.as_str() {
                    "downwardAPI" => downward(from, &here, errors),
                    _ => items(from, &here, errors),
                }
            }
            [one] => {
                let message = format!("{one} is not supported: use {}", PROJECTED.join(", "));
                errors.push(invalid(format!("{here}.{one}"), message));
            }
            _ => errors.push(invalid(here, "must have exactly one source")),
        }
    }
}

/// The mounts of the container at `here`.
pub(super) fn mounts(container: &Value, spec: &Value, here: &str, errors: &mut Errors) {
    let volumes: HashSet<&str> = list(spec, "/volumes").iter().map(|v| text(v, "/name")).collect();
    let mut paths = HashSet::new();
    for (j, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let here = format!("{here}.volumeMounts[{j}]");
        let volume = text(mount, "/name");
        if !volumes.contains(volume) {
            let message = format!("the pod has no volume {volume:?}");
            errors.push(invalid(format!("{here}.name"), message));
        }
        if !paths.insert(text(mount, "/mountPath")) {
            errors.push(invalid(format!("{here}.mountPath"), "must be unique"));
        }
        let (part, expression) = (text(mount, "/subPath"), text(mount, "/subPathExpr"));
        if !part.is_empty() && !expression.is_empty() {
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.push(invalid(format!("{here}.subPathExpr"), message));
        }
        for (field, value) in [("subPath", part), ("subPathExpr", expression)] {
            if value.starts_with('/') || value.split('/').any(|part| part == "..") {
                let message = "must be a relative path without '..'";
                errors.push(invalid(format!("{here}.{field}"), message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(volume: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(&json!({"volumes": [volume]}), "s", &mut errors);
        errors
            .into_iter()
            .map(|e| {
                e.field
                    .strip_prefix("s.volumes[0].")
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn a_file_is_within_its_volume() {
        let item = |path: &str| json!({"configMap": {"name": "m", "items": [{"key": "k", "path": path}]}});
        for good in ["a", "a/b/c", "a..b", ".hidden", "a/..b"] {
            assert!(refused(item(good)).is_empty(), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../b", "..a", "a//b", "./a", "a/"] {
            assert_eq!(refused(item(bad)), ["configMap.items[0].path"], "{bad}");
        }
        for (mode, good) in [(0, true), (0o777, true), (0o1000, false), (-1, false)] {
            let volume = json!({"secret": {"secretName": "s", "defaultMode": mode}});
            assert_eq!(refused(volume).is_empty(), good, "{mode}");
        }
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let projected = |source: Value| json!({"projected": {"sources": [source]}});
        let item = |from: Value| json!({"downwardAPI": {"items": [from]}});
        let labels = json!({"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}});
        let cpu = json!({"path": "c", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}});
        assert!(refused(item(labels)).is_empty());
        assert!(refused(item(cpu)).is_empty());
        assert!(refused(json!({"hostPath": {"path": "/a", "type": "FileOrCreate"}})).is_empty());
        assert!(refused(json!({"hostPath": {"path": "/a", "type": ""}})).is_empty());
        assert!(refused(projected(json!({"secret": {"name": "s"}}))).is_empty());
        for (bad, field) in [
            (
                projected(json!({"serviceAccountToken": {"path": "t"}})),
                "projected.sources[0].serviceAccountToken",
            ),
            (projected(json!({})), "projected.sources[0]"),
            (item(json!({"path": "x"})), "downwardAPI.items[0]"),
            (
                item(json!({"path": "x", "fieldRef": {"fieldPath": "status.podIP"}})),
                "downwardAPI.items[0].fieldRef.fieldPath",
            ),
            (
                item(json!({"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}})),
                "downwardAPI.items[0].resourceFieldRef.containerName",
            ),
            (json!({"emptyDir": {"medium": "HugePages"}}), "emptyDir.medium"),
            (json!({"emptyDir": {"sizeLimit": "x"}}), "emptyDir.sizeLimit"),
            (
                json!({"hostPath": {"path": "/a", "type": "directory"}}),
                "hostPath.type",
            ),
            (json!({"hostPath": {"path": "/a/../b"}}), "hostPath.path"),
        ] {
            assert_eq!(refused(bad.clone()), [field], "{bad}");
        }
    }

    #[test]
    fn a_volume_has_one_source_and_one_that_exists() {
        let host = json!({"path": "/tmp/x"});
        for other in [
            "csi",
            "ephemeral",
            "image",
            "persistentVolumeClaim",
            "nfs",
            "configMap",
            "secret",
            "downwardAPI",
            "projected",
            "emptyDir",
        ] {
            let both = json!({"name": "v", other: {}, "hostPath": host});
            let found = refused(both);
            let second = if other > "hostPath" { other } else { "hostPath" };
            assert!(found.iter().any(|field| field == second), "{other} {found:?}");
            // What names a claim has to name it.
            let exists = SOURCES.contains(&other) && other != "persistentVolumeClaim";
            assert_eq!(
                refused(json!({"name": "v", other: {}})).is_empty(),
                exists,
                "{other}"
            );
        }
        let mut errors = Errors::new();
        check(&json!({"volumes": [{"name": "v"}]}), "s", &mut errors);
        let said: Vec<_> = errors.iter().map(|e| (e.field.as_str(), e.reason)).collect();
        assert_eq!(said, [("s.volumes[0]", "FieldValueRequired")]);
    }

    #[test]
    fn a_claim_has_a_name() {
        let source = |claim: Value| json!({"persistentVolumeClaim": claim});
        assert!(refused(source(json!({"claimName": "c", "readOnly": true}))).is_empty());
        for bad in [json!({}), json!({"claimName": ""})] {
            assert_eq!(refused(source(bad)), ["persistentVolumeClaim.claimName"]);
        }
    }

    #[test]
    fn a_mount_has_a_path_of_its_own_within_a_volume() {
        let spec = json!({"volumes": [{"name": "v"}]});
        let bad = |mounts: Value| {
            let mut errors = Errors::new();
            super::mounts(&json!({"volumeMounts": mounts}), &spec, "c", &mut errors);
            errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        let mount = |path: &str, part: &str| json!({"name": "v", "mountPath": path, "subPath": part});
        assert!(bad(json!([mount("/a", "x/y"), mount("/b", "")])).is_empty());
        assert_eq!(
            bad(json!([mount("/a", ""), mount("/a", "")])),
            ["c.volumeMounts[1].mountPath"]
        );
        assert_eq!(bad(json!([mount("/a", "../x")])), ["c.volumeMounts[0].subPath"]);
        let both = json!([{"name": "v", "mountPath": "/a", "subPath": "x", "subPathExpr": "$(X)"}]);
        assert_eq!(bad(both), ["c.volumeMounts[0].subPathExpr"]);
        assert_eq!(
            bad(json!([{"name": "w", "mountPath": "/a"}])),
            ["c.volumeMounts[0].name"]
        );
    }
}
