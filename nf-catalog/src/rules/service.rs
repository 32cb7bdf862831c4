//! Rules of a service.

use super::function::function_name_problem;
use super::{Problems, dns_label_hint, is_dns_label};
use crate::{Need, NetworkServiceSpec, NfPackageSpec, Problem, Waits};

/// Most functions of a service.
const MOST_FUNCTIONS: usize = 256;

impl NetworkServiceSpec {
    /// Every broken rule of the service; `package` finds a package by name and version.
    pub fn problems<'a>(&self, package: impl Fn(&str, &str) -> Option<&'a NfPackageSpec>) -> Vec<Problem> {
        let mut found = Problems::default();
        found.require(!self.functions.is_empty(), "spec.functions", || {
            "at least one function is needed".to_owned()
        });
        if self.functions.len() > MOST_FUNCTIONS {
            let message = format!(
                "{} functions, a service has at most {MOST_FUNCTIONS}",
                self.functions.len()
            );
            found.add("spec.functions", message);
            return found.0;
        }
        found.unique("spec.functions", self.functions.iter().map(|f| f.name.as_str()));
        for (i, function) in self.functions.iter().enumerate() {
            let path = format!("spec.functions[{i}]");
            found.require(is_dns_label(&function.name), &format!("{path}.name"), || {
                dns_label_hint(&function.name)
            });
            if let Some(message) = function_name_problem(&function.name) {
                found.add(&format!("{path}.name"), message);
            }
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
        if let Some(circle) = self.waits(&package).circle() {
            let message = format!(
                "these wait for each other, so that none ever starts: {}",
                circle.join(", ")
            );
            found.add("spec.functions", message);
        }
        found.0
    }

    /// Which function waits for which.
    fn waits<'a>(&self, package: &impl Fn(&str, &str) -> Option<&'a NfPackageSpec>) -> Waits<'_> {
        let mut waits = Waits::default();
        for function in &self.functions {
            let needs = package(&function.package, &function.version).map_or(&[][..], |p| &p.needs);
            for need in needs.iter().filter(|need| need.wait) {
                if let Some(peer) = function.peers.get(&need.function) {
                    waits.add(&function.name, peer);
                }
            }
        }
        waits
    }

    fn peer_problems<'a>(
        &self,
        peer: &str,
        need: &Need,
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
            || format!("`{peer}` serves no interface `{}` to others", need.interface),
        );
    }
}
