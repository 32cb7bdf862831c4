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

    /// One key of what [`Self::files`] has, without the others; `None` if the object does not exist.
    pub(super) fn file(self, work: &Work<'_>, pod: &Pod, name: &str, key: &str) -> Option<Option<Vec<u8>>> {
        let at = Key::new(meta::namespace(&pod.metadata), name);
        if self == Self::ConfigMap {
            let map = work.get::<ConfigMap>(&at)?;
            let binary = map.binary_data.as_ref().and_then(|all| all.get(key));
            if let Some(bytes) = binary {
                return Some(Some(bytes.0.clone()));
            }
        }
        self.text(work, pod, name, key)
    }

    /// One key of what [`Self::texts`] has, without the others; `None` if the object does not exist.
    pub(super) fn text(self, work: &Work<'_>, pod: &Pod, name: &str, key: &str) -> Option<Option<Vec<u8>>> {
        let at = Key::new(meta::namespace(&pod.metadata), name);
        Some(match self {
            Self::ConfigMap => {
                let map = work.get::<ConfigMap>(&at)?;
                let text = map.data.as_ref().and_then(|all| all.get(key));
                text.map(|text| text.clone().into_bytes())
            }
            Self::Secret => {
                let secret = work.get::<Secret>(&at)?;
                secret
                    .data
                    .as_ref()
                    .and_then(|all| all.get(key))
                    .map(|value| value.0.clone())
            }
        })
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
