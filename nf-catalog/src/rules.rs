//! The rules that a descriptor must meet beyond its shape. Each returns every broken rule, not only the first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Cpu, DrainMethod, NetworkFunctionSpec, NetworkServiceSpec, NfContainer, NfPackageSpec, NfProbe, Problem,
    ServiceFunction,
};

/// The least memory of a container in bytes; below it a process hardly starts.
const MIN_MEMORY_BYTES: u64 = 4 << 20;

/// The largest user or group, as in Kubernetes: the kernel takes the largest of its own for "stay who you are".
pub const MAX_ID: u32 = 2_147_483_647;

/// The longest silence of a UDP flow that a package may ask for in seconds: a day.
const MAX_FLOW_IDLE_S: u32 = 86_400;

/// Configuration files of a package.
const MOST_FILES: usize = 64;
/// All templates of a package in bytes: what a ConfigMap may hold, for they become one.
const MOST_TEMPLATE_BYTES: usize = 1 << 20;
/// All values of a package, or of a function, in bytes of JSON.
const MOST_VALUE_BYTES: usize = 256 << 10;

impl NfPackageSpec {
    /// Every broken rule of the package, with paths from `spec`; its templates included.
    pub fn problems(&self) -> Vec<Problem> {
        let templates = self.template_problems().into_iter().map(|problem| Problem {
            path: format!("spec.templates.{}", problem.template),
            message: format!(
                "line {}, column {}: {}",
                problem.line, problem.column, problem.message
            ),
        });
        self.descriptor_problems().into_iter().chain(templates).collect()
    }

    /// Every broken rule but those of the templates, which stand in files of their own.
    pub(crate) fn descriptor_problems(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        found.require(is_dns_label(&self.package), "metadata.name", || {
            dns_label_hint(&self.package)
        });
        found.require(is_version(&self.version), "metadata.version", || {
            format!("`{}` is no version: write major.minor.patch", self.version)
        });
        found.require(!self.role.is_empty(), "spec.role", || {
            "a role is needed, for example P-CSCF".to_owned()
        });
        found.require(!self.containers.is_empty(), "spec.containers", || {
            "at least one container is needed".to_owned()
        });
        found.unique("spec.containers", self.containers.iter().map(|c| c.name.as_str()));
        for (i, container) in self.containers.iter().enumerate() {
            container_problems(container, &format!("spec.containers[{i}]"), &mut found);
        }
        self.interface_problems(&mut found);
        self.config_problems(&mut found);
        self.drain_problems(&mut found);
        found.require(
            self.scale.min <= self.scale.max && self.scale.max > 0,
            "spec.scale",
            || {
                format!(
                    "min {} and max {} leave no possible number of instances",
                    self.scale.min, self.scale.max
                )
            },
        );
        found.0
    }

    fn interface_problems(&self, found: &mut Problems) {
        found.unique("spec.interfaces", self.interfaces.iter().map(|i| i.name.as_str()));
        for (i, interface) in self.interfaces.iter().enumerate() {
            let path = format!("spec.interfaces[{i}]");
            found.require(is_dns_label(&interface.name), &format!("{path}.name"), || {
                dns_label_hint(&interface.name)
            });
            found.require(interface.port != 0, &format!("{path}.port"), || {
                "port 0 cannot be served".to_owned()
            });
            found.require(interface.network == "pod", &format!("{path}.network"), || {
                format!("network `{}` is not available: only `pod` is", interface.network)
            });
        }
        let mut served = BTreeMap::new();
        for (i, interface) in self.interfaces.iter().enumerate().filter(|(_, i)| i.service) {
            let port = (interface.port, interface.transport);
            let first = *served.entry(port).or_insert(interface.name.as_str());
            found.require(
                first == interface.name,
                &format!("spec.interfaces[{i}].port"),
                || {
                    format!(
                        "port {} is served by interface `{first}` already, over the same transport",
                        interface.port
                    )
                },
            );
        }
        found.unique("spec.needs", self.needs.iter().map(|n| n.function.as_str()));
    }

    fn config_problems(&self, found: &mut Problems) {
        let count = self.config.len();
        found.require(count <= MOST_FILES, "spec.config", || {
            format!("{count} files: {MOST_FILES} at most")
        });
        let bytes: usize = self.templates.values().map(String::len).sum();
        found.require(bytes <= MOST_TEMPLATE_BYTES, "spec.templates", || {
            format!("{bytes} bytes of templates: {MOST_TEMPLATE_BYTES} at most")
        });
        found.require(size(&self.values) <= MOST_VALUE_BYTES, "spec.values", || {
            format!("the values are larger than {MOST_VALUE_BYTES} bytes")
        });
        let paths = || self.config.iter().map(|c| c.path.as_str());
        found.unique("spec.config", paths());
        found.unique("spec.secrets", self.secrets.iter().map(|s| s.path.as_str()));
        for (i, file) in self.secrets.iter().enumerate() {
            let path = format!("spec.secrets[{i}]");
            found.require(is_dns_label(&file.secret), &format!("{path}.secret"), || {
                dns_label_hint(&file.secret)
            });
            found.require(is_key(&file.key), &format!("{path}.key"), || {
                format!("`{}` is no key: letters, digits, `-`, `_` and `.`", file.key)
            });
            found.require(is_clean_absolute(&file.path), &format!("{path}.path"), || {
                absolute_hint(&file.path)
            });
            found.require(
                !paths().any(|other| other == file.path),
                &format!("{path}.path"),
                || format!("`{}` is a file of spec.config, too", file.path),
            );
        }
        for (i, file) in self.config.iter().enumerate() {
            let path = format!("spec.config[{i}]");
            found.require(is_clean_absolute(&file.path), &format!("{path}.path"), || {
                absolute_hint(&file.path)
            });
            found.require(
                self.templates.contains_key(&file.template),
                &format!("{path}.template"),
                || format!("there is no file `{}` beside the descriptor", file.template),
            );
        }
    }

    fn drain_problems(&self, found: &mut Problems) {
        if let Some(sessions) = &self.drain.sessions {
            found.require(sessions.port != 0, "spec.drain.sessions.port", || {
                "port 0 cannot be asked".to_owned()
            });
        }
        let counts = matches!(self.drain.method, DrainMethod::SipDialogs | DrainMethod::Sessions);
        found.require(!counts || self.drain.sessions.is_some(), "spec.drain", || {
            "this method waits for sessions: say under `sessions` which metric counts them".to_owned()
        });
        let idle_s = self.drain.flow_idle_seconds;
        found.require(
            (1..=MAX_FLOW_IDLE_S).contains(&idle_s),
            "spec.drain.flowIdleSeconds",
            || format!("{idle_s} s: the longest silence within a session must be 1 to {MAX_FLOW_IDLE_S} s"),
        );
    }
}

/// Bytes of the values as JSON.
fn size(values: &BTreeMap<String, Value>) -> usize {
    serde_json::to_string(values).map_or(usize::MAX, |text| text.len())
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
        for name in self.values.keys() {
            found.require(
                package.values.contains_key(name),
                &format!("spec.values.{name}"),
                || {
                    format!(
                        "{} has no value `{name}`; it has {}",
                        package.package,
                        list(package.values.keys())
                    )
                },
            );
        }
        for need in &package.needs {
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
        }
        found.0
    }
}

impl NetworkServiceSpec {
    /// Every broken rule of the service; `package` finds a package by name and version.
    pub fn problems<'a>(&self, package: impl Fn(&str, &str) -> Option<&'a NfPackageSpec>) -> Vec<Problem> {
        let mut found = Problems::default();
        found.require(!self.functions.is_empty(), "spec.functions", || {
            "at least one function is needed".to_owned()
        });
        found.unique("spec.functions", self.functions.iter().map(|f| f.name.as_str()));
        for (i, function) in self.functions.iter().enumerate() {
            let path = format!("spec.functions[{i}]");
            found.require(is_dns_label(&function.name), &format!("{path}.name"), || {
                dns_label_hint(&function.name)
            });
            let Some(spec) = package(&function.package, &function.version) else {
                let message = format!("there is no package {} {}", function.package, function.version);
                found.add(&format!("{path}.package"), message);
                continue;
            };
            let problems = function.to_network_function(None).problems(spec);
            found.0.extend(problems.into_iter().map(|p| Problem {
                path: p.path.replacen("spec", &path, 1),
                ..p
            }));
            for need in &spec.needs {
                let Some(peer) = function.peers.get(&need.function) else {
                    continue;
                };
                self.peer_problems(
                    peer,
                    need,
                    &format!("{path}.peers.{}", need.function),
                    &package,
                    &mut found,
                );
            }
        }
        found.0
    }

    fn peer_problems<'a>(
        &self,
        peer: &str,
        need: &crate::Need,
        path: &str,
        package: &impl Fn(&str, &str) -> Option<&'a NfPackageSpec>,
        found: &mut Problems,
    ) {
        let Some(function) = self.functions.iter().find(|f| f.name == peer) else {
            return found.add(path, format!("the service has no function `{peer}`"));
        };
        let Some(spec) = package(&function.package, &function.version) else {
            return;
        };
        found.require(spec.role == need.role, path, || {
            format!("`{peer}` is a {}, and a {} is needed", spec.role, need.role)
        });
        found.require(
            spec.interfaces
                .iter()
                .any(|i| i.service && i.name == need.interface),
            path,
            || {
                format!(
                    "`{peer}` serves no interface `{}` at a virtual address",
                    need.interface
                )
            },
        );
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

fn container_problems(container: &NfContainer, path: &str, found: &mut Problems) {
    found.require(is_dns_label(&container.name), &format!("{path}.name"), || {
        dns_label_hint(&container.name)
    });
    found.require(!container.image.is_empty(), &format!("{path}.image"), || {
        "an image is needed".to_owned()
    });
    found.require(
        container.memory.0 >= MIN_MEMORY_BYTES,
        &format!("{path}.memory"),
        || format!("{} bytes are too few: at least 4Mi", container.memory.0),
    );
    cpu_problems(&container.cpu, &format!("{path}.cpu"), found);
    let security = &container.security;
    for (id, name) in [(security.user, "user"), (security.group, "group")] {
        let id = id.unwrap_or_default();
        found.require(id <= MAX_ID, &format!("{path}.security.{name}"), || {
            format!("{id} is too large: ids are 0 to {MAX_ID}")
        });
    }
    for (probe, name) in [
        (&container.readiness_probe, "readinessProbe"),
        (&container.liveness_probe, "livenessProbe"),
    ] {
        if let Some(probe) = probe {
            probe_problems(probe, &format!("{path}.{name}"), found);
        }
    }
    for (i, directory) in container.scratch.iter().enumerate() {
        found.require(
            is_clean_absolute(directory),
            &format!("{path}.scratch[{i}]"),
            || absolute_hint(directory),
        );
    }
}

fn cpu_problems(cpu: &Cpu, path: &str, found: &mut Problems) {
    match cpu {
        Cpu::Exclusive { count, .. } => {
            found.require(*count > 0, &format!("{path}.count"), || {
                "0 exclusive CPUs: use mode shared".to_owned()
            });
        }
        Cpu::Shared { request, limit } => {
            let limit_is_lower = limit.is_some_and(|limit| limit < *request);
            found.require(!limit_is_lower, &format!("{path}.limit"), || {
                format!("the limit is below the request of {request}")
            });
        }
    }
}

fn probe_problems(probe: &NfProbe, path: &str, found: &mut Problems) {
    let actions = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
    ];
    found.require(actions.iter().filter(|set| **set).count() == 1, path, || {
        "exactly one of httpGet, tcpSocket and exec is needed".to_owned()
    });
    let asked = [
        probe.http_get.as_ref().map(|get| get.port),
        probe.tcp_socket.as_ref().map(|socket| socket.port),
    ];
    found.require(!asked.contains(&Some(0)), path, || {
        "port 0 cannot be asked".to_owned()
    });
    let positive = probe.period_seconds > 0 && probe.timeout_seconds > 0 && probe.failure_threshold > 0;
    found.require(positive, path, || {
        "periodSeconds, timeoutSeconds and failureThreshold must be at least 1".to_owned()
    });
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: &str, message: String) {
        self.0.push(Problem {
            path: path.to_owned(),
            message,
        });
    }

    fn require(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(path, message());
        }
    }

    fn unique<'a>(&mut self, path: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.enumerate() {
            self.require(seen.insert(name), &format!("{path}[{i}]"), || {
                format!("`{name}` is there twice")
            });
        }
    }
}

/// The longest name of a package, function or interface: names of pods, made from it, have room.
const MAX_NAME_BYTES: usize = 40;

/// RFC 1123 label, not longer than that.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|b| inner(b) || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn dns_label_hint(name: &str) -> String {
    if name.len() > MAX_NAME_BYTES {
        return format!(
            "`{name}` has {} characters, at most {MAX_NAME_BYTES} are allowed",
            name.len()
        );
    }
    format!(
        "`{name}` is no name: lower-case letters, digits and inner hyphens, at most {MAX_NAME_BYTES} (RFC 1123)"
    )
}

/// As in Kubernetes.
fn is_key(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !key.is_empty() && key.len() <= 253 && key.bytes().all(plain) && !matches!(key, "." | "..")
}

fn is_version(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 3 && parts.iter().all(|p| p.len() <= 9 && p.parse::<u32>().is_ok())
}

fn is_clean_absolute(path: &str) -> bool {
    path.len() > 1
        && path.starts_with('/')
        && !path.ends_with('/')
        && path[1..].split('/').all(|p| !matches!(p, "" | "." | ".."))
}

fn absolute_hint(path: &str) -> String {
    format!("`{path}` is no absolute path without `.`, `..` and double slashes")
}

fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|n| n.as_ref().to_owned()).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
