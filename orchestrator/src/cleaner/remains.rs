//! What is left in a namespace on its way out, as its conditions say it.
//!
//! Source: k8s.io/api/core/v1, `NamespaceContentRemaining` and `NamespaceFinalizersRemaining`; the words are those of Kubernetes'
//! namespace controller.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::apiserver::now;
use crate::kinds::Kind;
use crate::store::Version;

/// What matters of an object here, read without the rest of it.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub name: String,
    /// It is on its way out.
    pub going: bool,
    finalizers: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<String>,
    finalizers: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Metadata,
}

impl Head {
    /// Empty for what is no object.
    pub fn of(version: &Version) -> Self {
        let object: Object = serde_json::from_slice(&version.value).unwrap_or_default();
        let metadata = object.metadata;
        Self {
            name: metadata.name,
            going: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
        }
    }
}

/// Counts by resource, and by finalizer.
#[derive(Debug, Default)]
pub(super) struct Remains {
    objects: BTreeMap<&'static str, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Remains {
    pub fn add(&mut self, kind: &'static Kind, head: &Head) {
        *self.objects.entry(kind.plural).or_default() += 1;
        for finalizer in &head.finalizers {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.objects.is_empty()
    }

    /// In the place of those of before, whose times stay where they say the same.
    pub fn conditions(&self, before: &Value) -> Value {
        let objects = self.objects.iter();
        let objects: Vec<String> = objects
            .map(|(resource, count)| format!("{resource}. has {count} resource instances"))
            .collect();
        let finalizers = self.finalizers.iter();
        let finalizers: Vec<String> = finalizers
            .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
            .collect();
        let mut conditions = vec![condition(
            before,
            "NamespaceContentRemaining",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", objects.join(", ")),
        )];
        if !finalizers.is_empty() {
            conditions.push(condition(
                before,
                "NamespaceFinalizersRemaining",
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    finalizers.join(", ")
                ),
            ));
        }
        Value::Array(conditions)
    }
}

fn condition(before: &Value, type_: &str, reason: &str, message: String) -> Value {
    let known = before.as_array().into_iter().flatten();
    let time = known
        .filter(|condition| condition["type"] == type_)
        .find_map(|condition| condition["lastTransitionTime"].as_str());
    json!({
        "type": type_, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": time.map_or_else(now, str::to_owned),
    })
}
