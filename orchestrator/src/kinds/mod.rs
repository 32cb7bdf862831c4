//! The table of kinds. A row says all that the API server knows of a kind; adding a kind is adding a row.

mod cells;
mod claims;
pub mod codec;
mod columns;
mod defaults;
mod extras;
mod honoured;
mod labelselector;
mod names;
mod packages;
mod path;
mod podcells;
mod podenv;
mod podnames;
mod podports;
mod podprobes;
mod podsecurity;
mod podspec;
mod podvolumes;
mod protective;
mod table;
mod unknown;
mod validate;
mod wire;

use std::collections::BTreeMap;

use gantry_catalog::NfPackageSpec;
use ipnet::Ipv4Net;
use serde_json::Value;

pub use columns::{Cell, Column, human_age};
pub(crate) use defaults::qos_class;
pub use labelselector::Requirement;
pub use names::{
    is_dns_label, is_dns_subdomain, is_env_name, is_label_value, is_qualified_name, label_problem,
    subdomain_problem,
};
pub use path::at;
pub use table::KINDS;
pub use unknown::unknown_fields;

/// Key of the service address that was taken last. Whoever gives a Service an address writes it in the same transaction, and
/// compares it with what it was when the taken addresses were read: so no two take the same at the same time.
pub const SERVICE_ADDRESS: &str = "/gantry/service-address";

/// The part of all service addresses that one namespace can take: one in so many.
const NAMESPACE_SHARE: u64 = 4;
/// So many it can have anyway: a range as small as that is one user's.
const LEAST_SHARE: u64 = 64;

/// How many addresses of a service range are given out: neither the network address, nor the first (a gateway, by custom), nor
/// the broadcast address.
pub fn service_addresses(range: Ipv4Net) -> u64 {
    (1u64 << (32 - range.prefix_len())).saturating_sub(3)
}

/// How many of them one namespace can take.
pub fn service_share(range: Ipv4Net) -> u64 {
    (service_addresses(range) / NAMESPACE_SHARE).max(LEAST_SHARE)
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path from the object's root: `spec.replicas`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueForbidden`, `FieldValueDuplicate`.
    pub reason: &'static str,
}

impl FieldError {
    /// The value is not allowed.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            reason: "FieldValueInvalid",
        }
    }

    /// The value may not be there as things are.
    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: "FieldValueForbidden",
            ..Self::invalid(field, message)
        }
    }

    /// There has to be one.
    pub fn required(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: "FieldValueRequired",
            ..Self::invalid(field, message)
        }
    }

    /// The value is there twice; `value` as JSON.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            field: field.into(),
            message: format!("Duplicate value: {value}"),
            reason: "FieldValueDuplicate",
        }
    }

    /// What the field is in an object; `Null` where its path leads nowhere.
    pub fn value_in<'a>(&self, object: &'a Value) -> &'a Value {
        let pointer = self.field.replace(['.', '['], "/").replace(']', "");
        at(object, &format!("/{pointer}"))
    }

    /// The value may not change.
    pub fn immutable(field: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: "may not be changed".to_owned(),
            reason: "FieldValueForbidden",
        }
    }
}

/// What a validation may look at besides the object.
#[derive(Debug, Default)]
pub struct Context {
    /// The packages that [`Kind::packages`] asked for and that exist, by package and version.
    pub packages: BTreeMap<(String, String), NfPackageSpec>,
}

/// Where the scale sub-resource finds its numbers. JSON pointers.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Wanted.
    pub spec_replicas: &'static str,
    /// Present.
    pub status_replicas: &'static str,
    /// A LabelSelector object, or its text.
    pub selector: &'static str,
}

/// One row.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// CamelCase name.
    pub kind: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    /// Name for one.
    pub singular: &'static str,
    /// Short names for `kubectl get`.
    pub short: &'static [&'static str],
    /// Groups of kinds for `kubectl get`, such as `all`.
    pub categories: &'static [&'static str],
    /// Objects live in a namespace.
    pub namespaced: bool,
    /// Has a status sub-resource: `status` changes only through it.
    pub status: bool,
    /// Has a scale sub-resource.
    pub scale: Option<Scale>,
    /// Sub-resources besides status and scale, with the kind that they take and the verbs.
    pub subresources: &'static [SubResource],
    /// Deletion waits for the node (pods).
    pub graceful: bool,
    /// Names are DNS labels (no dots).
    pub label_name: bool,
    /// Lists in it are merged by key in a strategic merge patch (Kubernetes' own kinds).
    pub strategic: bool,
    /// Decodes into the type and back: what comes out is what the type knows.
    pub decode: fn(&Value) -> Result<Value, DecodeError>,
    /// Fills in what was left out.
    pub default: fn(&mut Value),
    /// Rules on a new object, or on a change of an old one.
    pub validate: fn(&Value, Option<&Value>, &Context, &mut Vec<FieldError>),
    /// Paths of fields that are set and have no effect here: named in a warning.
    pub without_effect: fn(&Value) -> Vec<String>,
    /// Packages (name, version) that the validation wants to see.
    pub packages: fn(&Value) -> Vec<(String, String)>,
    /// Columns of `kubectl get` between NAME and AGE, and wide ones after it.
    pub columns: &'static [Column],
}

/// A sub-resource in the discovery.
#[derive(Debug)]
pub struct SubResource {
    /// Last part of the URL.
    pub name: &'static str,
    /// Group and version of what it takes.
    pub group_version: (&'static str, &'static str),
    /// Kind of what it takes.
    pub kind: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// Input that does not fit the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct DecodeError {
    /// Path from the object's root.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Kind {
    /// `group/version`, or `version` in the core group.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Prefix of the keys of all objects, or of those in a namespace.
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group };
        match namespace {
            Some(namespace) if self.namespaced => format!("/registry/{group}/{}/{namespace}/", self.plural),
            _ => format!("/registry/{group}/{}/", self.plural),
        }
    }

    /// Key of an object; the namespace is left out for cluster-wide kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        self.prefix(Some(namespace)) + name
    }
}

/// Seconds that a pod has to stop where it says nothing.
const DEFAULT_GRACE_S: i64 = 30;

/// Seconds that a pod has to stop: a negative number means 1, as in Kubernetes.
pub fn grace_seconds(asked: i64) -> i64 {
    if asked < 0 { 1 } else { asked }
}

/// The row of a resource in a URL.
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// The row of a kind by its name alone; kinds are distinct over all groups.
pub fn named(kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.kind == kind)
}

#[cfg(test)]
mod tests;
