//! Rules of a package.

use std::collections::BTreeMap;

use serde_json::Value;

use super::container::container_problems;
use super::{MAX_NAME_BYTES, Problems, dns_label_hint, is_dns_label, is_version};
use crate::{DrainMethod, NfPackageSpec, PodSecurityLevel, Problem};

/// The longest silence of a UDP flow that a package may ask for in seconds: a day.
const MAX_FLOW_IDLE_S: u32 = 86_400;

/// All values of a package, or of a function, in bytes of JSON.
pub(super) const MOST_VALUE_BYTES: usize = 256 << 10;

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
        let names = self.init_containers.iter().chain(&self.containers);
        found.unique("spec.containers", names.map(|c| c.name.as_str()));
        for (list, containers) in [
            ("initContainers", &self.init_containers),
            ("containers", &self.containers),
        ] {
            for (i, container) in containers.iter().enumerate() {
                container_problems(container, &format!("spec.{list}[{i}]"), &mut found);
            }
        }
        for name in self.sysctls.keys() {
            found.require(is_own_sysctl(name), &format!("spec.sysctls.{name}"), || {
                format!("`{name}` is not of a pod's own: those are net.*, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.*")
            });
        }
        self.security_problems(&mut found);
        self.interface_problems(&mut found);
        self.need_problems(&mut found);
        self.file_problems(&mut found);
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
            let portless = interface.subnet.is_some() && !interface.service;
            found.require(interface.port != 0 || portless, &format!("{path}.port"), || {
                "a port is needed, and 0 is none".to_owned()
            });
            let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
            let protocol = &interface.protocol;
            found.require(
                (1..=MAX_NAME_BYTES).contains(&protocol.len()) && protocol.bytes().all(name),
                &format!("{path}.protocol"),
                || {
                    format!(
                        "`{protocol}` is no protocol: letters, digits, `-` and `.`, at most {MAX_NAME_BYTES}"
                    )
                },
            );
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
        self.subnet_problems(found);
    }

    fn subnet_problems(&self, found: &mut Problems) {
        let mut owners = self
            .interfaces
            .iter()
            .enumerate()
            .filter_map(|(i, interface)| Some((i, interface.subnet.as_ref()?)));
        let Some((i, subnet)) = owners.next() else {
            return;
        };
        let path = format!("spec.interfaces[{i}].subnet");
        let pool = subnet.pool_of(&self.values).and_then(|pool| {
            let instances = subnet.instances(pool)?;
            (instances >= u64::from(self.scale.max))
                .then_some(())
                .ok_or_else(|| {
                    format!(
                        "{pool} has room for {instances} instances with /{}, and scale.max is {}",
                        subnet.prefix, self.scale.max
                    )
                })
        });
        if let Err(why) = pool {
            found.add(&path, why);
        }
        if let Some((i, _)) = owners.next() {
            let path = format!("spec.interfaces[{i}].subnet");
            found.add(
                &path,
                "only one interface may have addresses behind it".to_owned(),
            );
        }
    }

    fn need_problems(&self, found: &mut Problems) {
        found.unique("spec.needs", self.needs.iter().map(|n| n.function.as_str()));
        for (i, need) in self.needs.iter().enumerate() {
            found.require(
                !need.function.is_empty()
                    && need
                        .function
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                &format!("spec.needs[{i}].function"),
                || {
                    format!(
                        "`{}` cannot be named in a template: letters, digits and `_`",
                        need.function
                    )
                },
            );
        }
        let Some(dns) = &self.dns else { return };
        let server = self.needs.iter().find(|n| n.function == dns.server);
        found.require(server.is_some_and(|n| !n.optional), "spec.dns.server", || {
            format!(
                "`{}` is none of spec.needs, or may be left out: name a peer that answers DNS",
                dns.server
            )
        });
    }

    fn security_problems(&self, found: &mut Problems) {
        let level = self.pod_security;
        let all = self.init_containers.iter().chain(&self.containers);
        for container in all.filter(|_| level != PodSecurityLevel::Privileged) {
            let beyond: Vec<&str> = container
                .security
                .capabilities
                .iter()
                .map(String::as_str)
                .filter(|name| *name != "NET_BIND_SERVICE")
                .collect();
            found.require(beyond.is_empty(), "spec.podSecurity", || {
                format!(
                    "container `{}` asks for {}, which no level below `privileged` allows every package",
                    container.name,
                    beyond.join(", ")
                )
            });
            let root = container.security.user == Some(0);
            found.require(
                !root || level != PodSecurityLevel::Restricted,
                "spec.podSecurity",
                || {
                    format!(
                        "container `{}` runs as root, which needs the level `baseline`",
                        container.name
                    )
                },
            );
        }
    }

    fn drain_problems(&self, found: &mut Problems) {
        if let Some(sessions) = &self.drain.sessions {
            found.require(sessions.port != 0, "spec.drain.sessions.port", || {
                "port 0 cannot be asked".to_owned()
            });
        }
        if let Some(metrics) = &self.metrics {
            found.require(metrics.port != 0, "spec.metrics.port", || {
                "port 0 cannot be asked".to_owned()
            });
            found.require(metrics.path.starts_with('/'), "spec.metrics.path", || {
                format!("`{}` is no path: it begins with `/`", metrics.path)
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

/// Whether a kernel parameter is one of a namespace that each pod has (`sysctl(2)`, `namespaces(7)`).
fn is_own_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        !part.is_empty() && part.bytes().all(letter)
    };
    let spaces = ["net.", "kernel.msg", "kernel.shm", "fs.mqueue."];
    let is_own = name == "kernel.sem" || spaces.iter().any(|space| name.starts_with(space));
    is_own && name.split('.').all(part)
}

/// Bytes of the values as JSON.
pub(super) fn size(values: &BTreeMap<String, Value>) -> usize {
    serde_json::to_string(values).map_or(usize::MAX, |text| text.len())
}
