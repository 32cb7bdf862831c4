//! What a revision was made from, for pods that outlive it: kept with its files.

use std::collections::BTreeMap;

use gantry_api::labels;
use gantry_catalog::PeerContext;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::meta;
use super::super::world::{Key, Work};
use super::{Blueprint, config_map_name};

/// Annotation of a revision's ConfigMap.
const MADE_FROM: &str = "gantry.dev/made-from";

/// All that the files of its instances depend on, but for what is around them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Revision {
    pub package: String,
    pub version: String,
    pub values: BTreeMap<String, Value>,
    /// Without their instances.
    pub peers: BTreeMap<String, PeerContext>,
}

impl Revision {
    pub fn package_key(&self) -> Key {
        Key::new("", &format!("{}-{}", self.package, self.version))
    }

    /// As the annotation of a ConfigMap.
    pub fn annotation(&self) -> (&'static str, String) {
        let text = serde_json::to_string(self).expect("plain data with string keys has a JSON form");
        (MADE_FROM, text)
    }
}

/// The revision of a pod; `None` if nobody knows what it was made from.
pub(super) fn of_pod(work: &Work<'_>, blueprint: &Blueprint, pod: &Pod) -> Option<Revision> {
    let revision = meta::label(&pod.metadata, labels::REVISION)?;
    if revision == blueprint.revision {
        return Some(blueprint.made_from());
    }
    let function = &blueprint.function.metadata;
    let key = Key::new(meta::namespace(function), &config_map_name(function, revision));
    let map = work.get::<ConfigMap>(&key)?;
    let text = meta::annotation(&map.metadata, MADE_FROM)?;
    serde_json::from_str(text).ok()
}
