//! Rules of a function.

use serde_json::Value;

use super::container::{cpu_problems, memory_problems};
use super::package::{MOST_VALUE_BYTES, size};
use super::{Problems, list};
use crate::{NetworkFunctionSpec, NfPackageSpec, Problem, ServiceFunction};

/// The longest name of a function, in bytes: with a number behind it, it is an instance's, which is a label in DNS (RFC 1035, 2.3.4).
pub const LONGEST_FUNCTION_NAME: usize = 58;

/// What is wrong with the name of a function that is a label, if something is.
pub fn function_name_problem(name: &str) -> Option<String> {
    let message = format!(
        "`{name}` has {} characters, a function's name at most {LONGEST_FUNCTION_NAME}: its instances' have a number behind it",
        name.len()
    );
    (name.len() > LONGEST_FUNCTION_NAME).then_some(message)
}

/// Numbers, texts, and true or false are rendered alike.
fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
        Value::Bool(_) | Value::Number(_) | Value::String(_) => "one value",
    }
}

impl NetworkFunctionSpec {
    /// Every broken rule of a function that runs `package`.
    pub fn problems(&self, package: &NfPackageSpec) -> Vec<Problem> {
        let mut found = Problems::default();
        found.require(
            self.replicas == 0 || (package.scale.min..=package.scale.max).contains(&self.replicas),
            "spec.replicas",
            || {
                format!(
                    "{} allows {} to {} instances",
                    package.package, package.scale.min, package.scale.max
                )
            },
        );
        found.require(size(&self.values) <= MOST_VALUE_BYTES, "spec.values", || {
            format!("the values are larger than {MOST_VALUE_BYTES} bytes")
        });
        for (name, value) in &self.values {
            let path = format!("spec.values.{name}");
            let Some(usual) = package.values.get(name) else {
                let has = list(package.values.keys());
                found.require(false, &path, || {
                    format!("{} has no value `{name}`; it has {has}", package.package)
                });
                continue;
            };
            found.require(usual.is_null() || shape(value) == shape(usual), &path, || {
                format!(
                    "{} takes {} for `{name}` (the package has {usual}), and this is {}; an empty text is \"\"",
                    package.package,
                    shape(usual),
                    shape(value)
                )
            });
        }
        self.pool_problems(package, &mut found);
        for need in package.needs.iter().filter(|need| !need.optional) {
            found.require(self.peers.contains_key(&need.function), "spec.peers", || {
                format!(
                    "{} needs a {} as peer `{}`",
                    package.package, need.role, need.function
                )
            });
        }
        for name in self.peers.keys() {
            found.require(
                package.needs.iter().any(|n| n.function == *name),
                &format!("spec.peers.{name}"),
                || format!("{} needs no peer `{name}`", package.package),
            );
        }
        for (name, resources) in &self.resources {
            let path = format!("spec.resources.{name}");
            found.require(package.containers.iter().any(|c| c.name == *name), &path, || {
                format!(
                    "{} has no container `{name}`; it has {}",
                    package.package,
                    list(package.containers.iter().map(|c| &c.name))
                )
            });
            if let Some(cpu) = &resources.cpu {
                cpu_problems(cpu, &format!("{path}.cpu"), &mut found);
            }
            if let Some(memory) = resources.memory {
                memory_problems(memory, &format!("{path}.memory"), &mut found);
            }
        }
        found.0
    }

    /// Addresses behind instances, as these values have them.
    fn pool_problems(&self, package: &NfPackageSpec, found: &mut Problems) {
        let mut values = package.values.clone();
        values.extend(self.values.clone());
        for subnet in package.interfaces.iter().filter_map(|i| i.subnet.as_ref()) {
            let last = self.replicas.saturating_sub(1);
            if let Err(why) = subnet.of(&values, last) {
                found.add(&format!("spec.values.{}", subnet.pool), why);
            }
        }
    }
}

impl ServiceFunction {
    /// The NetworkFunction that it becomes.
    pub fn to_network_function(&self, group: Option<String>) -> NetworkFunctionSpec {
        NetworkFunctionSpec {
            package: self.package.clone(),
            version: self.version.clone(),
            replicas: self.replicas,
            values: self.values.clone(),
            peers: self.peers.clone(),
            resources: self.resources.clone(),
            group,
        }
    }
}
