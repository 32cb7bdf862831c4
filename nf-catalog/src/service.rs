//! `NetworkFunction` (instances of a package) and `NetworkService` (several functions wired together).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Cpu, Quantity};

/// Desired instances of one package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkFunctionSpec {
    /// Package name.
    pub package: String,
    /// Package version.
    pub version: String,
    /// Number of instances.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Overrides of the package's values.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// Peers: name in the package's `needs` to a NetworkFunction of the same namespace.
    #[serde(default)]
    pub peers: BTreeMap<String, String>,
    /// Overrides of resources by container name.
    #[serde(default)]
    pub resources: BTreeMap<String, ResourceOverride>,
    /// Instances with the same group are placed all or none; set by a NetworkService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

fn one() -> u32 {
    1
}

/// Resources other than the package's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceOverride {
    /// CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// Several functions, wired together and placed as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkServiceSpec {
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// What is looked for in such a service and is not in it, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves_out: Vec<String>,
    /// The functions.
    pub functions: Vec<ServiceFunction>,
}

/// One function of a service; becomes the NetworkFunction `name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceFunction {
    /// Name of the NetworkFunction.
    pub name: String,
    /// The rest as in a NetworkFunction.
    pub package: String,
    /// Package version.
    pub version: String,
    /// Number of instances.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Overrides of values.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// Peers by name in the package's `needs`; values are names of functions in this service.
    #[serde(default)]
    pub peers: BTreeMap<String, String>,
    /// Overrides of resources by container name.
    #[serde(default)]
    pub resources: BTreeMap<String, ResourceOverride>,
}
