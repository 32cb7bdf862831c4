//! What ConfigMaps and Secrets hold, as bytes by key.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

use super::super::meta;
use super::super::world::{Key, Work};

/// Values by key.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// Where values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    /// The texts of a ConfigMap (variables do not see its `binaryData`), or all of a Secret; `None` if it does not exist.
    pub(super) fn texts(self, work: &Work<'_>, pod: &Pod, name: &str) -> Option<Data> {
        let key = Key::new(meta::namespace(&pod.metadata), name);
        match self {
            Self::ConfigMap => {
                let map = work.get::<ConfigMap>(&key)?;
                let texts = map.data.iter().flatten();
                Some(texts.map(|(k, v)| (k.clone(), v.clone().into_bytes())).collect())
            }
            Self::Secret => {
                let secret = work.get::<Secret>(&key)?;
                let values = secret.data.iter().flatten();
                Some(values.map(|(k, v)| (k.clone(), v.0.clone())).collect())
            }
        }
    }

    /// All of it, as a volume shows it; `None` if it does not exist.
    pub(super) fn files(self, work: &Work<'_>, pod: &Pod, name: &str) -> Option<Data> {
        let mut data = self.texts(work, pod, name)?;
        if self == Self::ConfigMap {
            let map = work.get::<ConfigMap>(&Key::new(meta::namespace(&pod.metadata), name))?;
            let binary = map.binary_data.iter().flatten();
            data.extend(binary.map(|(k, v)| (k.clone(), v.0.clone())));
        }
        Some(data)
    }

    /// In words, that there is no such object: as Kubernetes says it.
    pub(super) fn missing(self, name: &str) -> String {
        match self {
            Self::ConfigMap => format!("configmap {name:?} not found"),
            Self::Secret => format!("secret {name:?} not found"),
        }
    }

    /// In words, that the object has no such key: as Kubernetes says it.
    pub(super) fn missing_key(self, pod: &Pod, name: &str, key: &str) -> String {
        let namespace = meta::namespace(&pod.metadata);
        let kind = match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        };
        format!("couldn't find key {key} in {kind} {namespace}/{name}")
    }
}
