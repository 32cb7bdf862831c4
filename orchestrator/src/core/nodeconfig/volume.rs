//! Volumes of a pod and where its containers mount them.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{HostPathType, Mount, Volume};
use k8s_openapi::api::core::v1::{self as k8s, Container, Pod};

use super::super::world::Work;
use super::super::{claims, resources};
use super::data::Source;
use super::expand::{Vars, expand_all};
use super::files::{self, Keys};
use super::one::exactly_one;
use super::room::Allowance;

/// All volumes by name; in words what is missing.
pub(super) fn all(
    work: &Work<'_>,
    pod: &Pod,
    room: &mut Allowance,
) -> Result<BTreeMap<String, Volume>, String> {
    let all = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    all.map(|v| volume(work, pod, v, room).map(|volume| (v.name.clone(), volume)))
        .collect()
}

fn volume(work: &Work<'_>, pod: &Pod, from: &k8s::Volume, room: &mut Allowance) -> Result<Volume, String> {
    let unfit = |e: String| format!("volume {:?}: {e}", from.name);
    exactly_one(from, &["name"]).map_err(unfit)?;
    if let Some(source) = &from.config_map {
        let mode = files::mode(source.default_mode);
        let keys = Keys {
            source: Source::ConfigMap,
            name: &source.name,
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
        };
        files::keyed(work, pod, &keys, mode, room)
            .map(Volume::Files)
            .map_err(unfit)
    } else if let Some(source) = &from.secret {
        let mode = files::mode(source.default_mode);
        let keys = Keys {
            source: Source::Secret,
            name: source.secret_name.as_deref().unwrap_or_default(),
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
        };
        files::keyed(work, pod, &keys, mode, room)
            .map(Volume::SecretFiles)
            .map_err(unfit)
    } else if let Some(source) = &from.downward_api {
        let mode = files::mode(source.default_mode);
        files::downward(work, pod, source.items.as_deref().unwrap_or_default(), mode, room)
            .map(Volume::Files)
            .map_err(unfit)
    } else if let Some(source) = &from.projected {
        files::projected(work, pod, source, room).map_err(unfit)
    } else if let Some(source) = &from.empty_dir {
        let limit = source
            .size_limit
            .as_ref()
            .and_then(|q| resources::parse_bytes(&q.0));
        let limit_bytes = limit.unwrap_or(0);
        Ok(match source.medium.as_deref() {
            Some("Memory") => Volume::Scratch {
                size_bytes: limit_bytes,
            },
            _ => Volume::EmptyDir { limit_bytes },
        })
    } else if let Some(source) = &from.persistent_volume_claim {
        claims::volume(work, pod, source)
    } else if let Some(source) = &from.host_path {
        Ok(Volume::HostPath {
            path: source.path.clone(),
            kind: host_path_type(source.type_.as_deref().unwrap_or_default()).ok_or_else(|| {
                format!(
                    "volume `{}` has a hostPath of a type that does not exist",
                    from.name
                )
            })?,
        })
    } else {
        Err(format!(
            "volume `{}` is of a type that is not supported: use configMap, secret, downwardAPI, projected, emptyDir, persistentVolumeClaim or hostPath",
            from.name
        ))
    }
}

/// The types of Kubernetes.
fn host_path_type(name: &str) -> Option<HostPathType> {
    Some(match name {
        "" => HostPathType::Any,
        "Directory" => HostPathType::Directory,
        "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
        "File" => HostPathType::File,
        "FileOrCreate" => HostPathType::FileOrCreate,
        "Socket" => HostPathType::Socket,
        "CharDevice" => HostPathType::CharDevice,
        "BlockDevice" => HostPathType::BlockDevice,
        _ => return None,
    })
}

/// Where a container sees which volume.
pub(super) fn mounts(container: &Container, vars: &Vars) -> Result<Vec<Mount>, String> {
    let mount = |m: &k8s::VolumeMount| {
        let part = m.sub_path.as_deref().unwrap_or_default();
        let sub_path = match m.sub_path_expr.as_deref() {
            Some(text) if !text.is_empty() && !part.is_empty() => {
                return Err(format!(
                    "the mount at {:?} of container {} has subPath and subPathExpr: only one is allowed",
                    m.mount_path, container.name
                ));
            }
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
