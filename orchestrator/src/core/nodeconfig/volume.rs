//! Volumes of a pod and where its containers mount them.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{Mount, Volume};
use k8s_openapi::api::core::v1::{self as k8s, Container, KeyToPath, Pod};

use super::super::resources;
use super::super::world::Work;
use super::data::{Data, Source};
use super::expand::{Vars, expand_all};

/// All volumes by name; in words what is missing.
pub(super) fn all(work: &Work<'_>, pod: &Pod) -> Result<BTreeMap<String, Volume>, String> {
    let all = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    all.map(|v| volume(work, pod, v).map(|volume| (v.name.clone(), volume)))
        .collect()
}

fn volume(work: &Work<'_>, pod: &Pod, from: &k8s::Volume) -> Result<Volume, String> {
    let unfit = |e: String| format!("volume {:?}: {e}", from.name);
    if let Some(source) = &from.config_map {
        files(
            work,
            pod,
            Source::ConfigMap,
            &source.name,
            &source.items,
            source.optional,
        )
        .map(Volume::Files)
        .map_err(unfit)
    } else if let Some(source) = &from.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        files(work, pod, Source::Secret, &name, &source.items, source.optional)
            .map(Volume::Files)
            .map_err(unfit)
    } else if let Some(source) = &from.empty_dir {
        let limit = source
            .size_limit
            .as_ref()
            .and_then(|q| resources::parse_bytes(&q.0));
        Ok(Volume::Scratch {
            size_bytes: limit.unwrap_or(0),
        })
    } else if let Some(source) = &from.host_path {
        Ok(Volume::HostPath {
            path: source.path.clone(),
        })
    } else {
        Err(format!(
            "volume `{}` is of a type that is not supported: use configMap, secret, emptyDir or hostPath",
            from.name
        ))
    }
}

/// All keys, or the chosen items. A key that is missing is an error unless everything may be missing.
fn files(
    work: &Work<'_>,
    pod: &Pod,
    source: Source,
    name: &str,
    items: &Option<Vec<KeyToPath>>,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, String> {
    let optional = optional == Some(true);
    let Some(data) = source.files(work, pod, name) else {
        return if optional {
            Ok(BTreeMap::new())
        } else {
            Err(source.missing(name))
        };
    };
    let Some(items) = items.as_ref().filter(|items| !items.is_empty()) else {
        return texts(name, data);
    };
    let mut chosen = Data::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => drop(chosen.insert(item.path.clone(), value.clone())),
            None if optional => {}
            None => return Err(source.missing_key(pod, name, &item.key)),
        }
    }
    texts(name, chosen)
}

fn texts(name: &str, data: Data) -> Result<BTreeMap<String, String>, String> {
    let text = |(path, value)| match String::from_utf8(value) {
        Ok(text) => Ok((path, text)),
        Err(_) => Err(format!("file {path:?} of {name:?} is not UTF-8 text")),
    };
    data.into_iter().map(text).collect()
}

/// Where a container sees which volume.
pub(super) fn mounts(container: &Container, vars: &Vars) -> Result<Vec<Mount>, String> {
    let mount = |m: &k8s::VolumeMount| {
        let sub_path = match m.sub_path_expr.as_deref() {
            Some(text) if !text.is_empty() => {
                let expanded = expand_all(text, vars)
                    .map_err(|e| format!("subPathExpr {text:?} of container {}: {e}", container.name))?;
                Some(expanded)
            }
            _ => m.sub_path.clone(),
        };
        Ok(Mount {
            volume: m.name.clone(),
            path: m.mount_path.clone(),
            sub_path: sub_path.filter(|s| !s.is_empty()),
            read_only: m.read_only.unwrap_or(false),
        })
    };
    container.volume_mounts.iter().flatten().map(mount).collect()
}
