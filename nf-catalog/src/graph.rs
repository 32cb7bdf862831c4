//! A service as a graph: its functions, and the reference points between them.

mod svg;

use std::fmt::Write;

use serde::Serialize;

use crate::{Catalog, NetworkServiceSpec, NfPackageSpec, Plane};

/// Columns of a terminal that the text stays within.
const WIDTH: usize = 100;

/// Functions and what is between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// By plane, within one as the service lists them.
    pub functions: Vec<Node>,
    /// By who talks first.
    pub links: Vec<Link>,
    /// What is looked for in such a service and is not in it.
    pub leaves_out: Vec<String>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// As 3GPP names it.
    pub role: String,
    /// What it carries.
    pub plane: Plane,
    /// Reference points at which those outside of the service talk to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
    /// What it owns behind it, as the value that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

/// Two functions that talk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Who needs the other.
    pub from: String,
    /// Who is needed.
    pub to: String,
    /// The reference point; the protocol in lower case where 3GPP has no name for it.
    pub label: String,
    /// The first starts when the second is ready.
    pub waits: bool,
}

impl Graph {
    /// The graph of a service of the catalog. Functions whose packages are not in it are left out.
    pub fn of(catalog: &Catalog, service: &NetworkServiceSpec) -> Self {
        let package = |name: &str| {
            let function = service.functions.iter().find(|f| f.name == name)?;
            catalog.package(&function.package, Some(&function.version))
        };
        let known = service
            .functions
            .iter()
            .filter_map(|f| Some((f, package(&f.name)?)));
        let mut functions: Vec<Node> = known.clone().map(|(f, package)| node(&f.name, package)).collect();
        functions.sort_by_key(|node| node.plane);
        let links = known.flat_map(|(function, own)| {
            let wired = own
                .needs
                .iter()
                .filter_map(|need| Some((need, function.peers.get(&need.function)?)));
            wired.map(|(need, peer)| {
                let protocol = || {
                    let served = package(peer).map_or(&[][..], |p| &p.interfaces);
                    let interface = served.iter().find(|i| i.name == need.interface);
                    interface.map_or_else(|| need.interface.clone(), |i| i.protocol.to_lowercase())
                };
                Link {
                    from: function.name.clone(),
                    to: peer.clone(),
                    label: match need.reference_point.as_str() {
                        "" => protocol(),
                        named => named.to_owned(),
                    },
                    waits: need.wait,
                }
            })
        });
        Self {
            links: links.collect(),
            functions,
            leaves_out: service.leaves_out.clone(),
        }
    }

    /// For a terminal: each function with those that it talks to, by plane.
    pub fn text(&self) -> String {
        let width = |of: fn(&Node) -> usize| self.functions.iter().map(of).max().unwrap_or(0);
        let (names, roles) = (width(|n| n.name.len()), width(|n| n.role.len()));
        let mut text = String::new();
        for plane in Plane::ALL {
            let nodes: Vec<&Node> = self.functions.iter().filter(|n| n.plane == plane).collect();
            if nodes.is_empty() {
                continue;
            }
            // Writing to a String does not fail.
            let _ = writeln!(text, "{}", plane.name());
            for node in nodes {
                let links = self.links.iter().filter(|link| link.from == node.name);
                let to = links.map(|link| format!("{} -> {}", link.label, link.to));
                let from_outside = node.outside.iter().map(|point| format!("{point} <- outside"));
                let owned = node.subnet.iter().map(|subnet| format!("owns {subnet}"));
                let says: Vec<String> = from_outside.chain(to).chain(owned).collect();
                let head = format!("  {:names$}  {:roles$}  ", node.name, node.role);
                wrap(&mut text, &head, &says);
            }
        }
        if !self.leaves_out.is_empty() {
            wrap(&mut text, "left out: ", &self.leaves_out);
        }
        text
    }

    /// For a browser.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }
}

/// A list behind a head, over as many lines as it takes.
fn wrap(text: &mut String, head: &str, list: &[String]) {
    let mut line = head.to_owned();
    for (nth, item) in list.iter().enumerate() {
        let comma = if nth + 1 < list.len() { "," } else { "" };
        if line.len() > head.len() && line.len() + item.len() + comma.len() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(head.len());
        }
        line += &format!("{item}{comma} ");
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn node(name: &str, package: &NfPackageSpec) -> Node {
    let owned = package.interfaces.iter().find_map(|i| i.subnet.as_ref());
    let points = package.interfaces.iter().map(|i| i.reference_point.clone());
    Node {
        name: name.to_owned(),
        role: package.role.clone(),
        plane: package.plane,
        outside: points.filter(|point| !point.is_empty()).collect(),
        subnet: owned.map(|subnet| subnet.pool.clone()),
    }
}
