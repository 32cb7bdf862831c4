//! What the files under `/etc` tell a pod about names. No container writes them, and what one of an earlier version has written
//! is not read beyond the length that is wanted.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gantry_nodeagent_api::{DEFAULT_FILE_MODE, DnsPolicy, HostAlias, NodeNetwork, PodConfig};

use super::{PodDir, RuntimeError, files};

/// Name servers beyond these are never asked (resolv.conf(5)).
const MAX_NAMESERVERS: usize = 3;
/// The node's own resolv.conf is read so far, in bytes.
const MAX_RESOLV_BYTES: u64 = 64 << 10;
/// Longest host name in the kernel, in bytes.
const MAX_HOSTNAME: usize = 64;

/// What `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFiles {
    /// Content of `/etc/hostname`.
    pub hostname: String,
    /// The pod's full name; empty if it has none.
    pub fqdn: String,
    /// The pod's address, named `hostname` in `/etc/hosts`.
    pub address: Option<IpAddr>,
    /// More lines of `/etc/hosts`.
    pub aliases: Vec<HostAlias>,
    /// `nameserver` lines of `/etc/resolv.conf`.
    pub nameservers: Vec<IpAddr>,
    /// The `search` line of `/etc/resolv.conf`; none if empty.
    pub search: Vec<String>,
    /// The `options` line of `/etc/resolv.conf`; none if empty.
    pub options: Vec<String>,
}

impl NetworkFiles {
    /// What a pod is to be told on a node with this network.
    pub fn of(pod: &PodConfig, network: Option<&NodeNetwork>) -> Self {
        let own = match pod.names.dns_policy {
            DnsPolicy::Cluster => network.map(|n| cluster(pod, n)).unwrap_or_default(),
            DnsPolicy::Node => nodes_own(),
            DnsPolicy::None => Self::default(),
        };
        let names = &pod.names;
        let mut nameservers = own.nameservers;
        nameservers.extend(&names.nameservers);
        nameservers.truncate(MAX_NAMESERVERS);
        let mut search = own.search;
        for domain in &names.searches {
            if !search.contains(domain) {
                search.push(domain.clone());
            }
        }
        Self {
            hostname: hostname(pod),
            fqdn: names.fqdn.clone(),
            address: None,
            aliases: names.aliases.clone(),
            nameservers,
            search,
            options: merge(own.options, &names.options),
        }
    }
}

/// A pod's host name: as far as the kernel takes it, cut as Kubernetes does.
pub fn hostname(pod: &PodConfig) -> String {
    let (name, most) = match pod.names.hostname.as_str() {
        "" => (pod.name.as_str(), MAX_HOSTNAME - 1),
        given => (given, MAX_HOSTNAME),
    };
    let cut = name
        .char_indices()
        .nth(most)
        .map_or(name, |(end, _)| &name[..end]);
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn cluster(pod: &PodConfig, network: &NodeNetwork) -> NetworkFiles {
    let domain = network.cluster_domain.trim_end_matches('.');
    NetworkFiles {
        nameservers: vec![network.gateway.into()],
        search: vec![
            format!("{}.svc.{domain}", pod.namespace),
            format!("svc.{domain}"),
            domain.to_owned(),
        ],
        options: vec!["ndots:5".to_owned()],
        ..NetworkFiles::default()
    }
}

/// What the node itself has. Without a file it asks nobody.
fn nodes_own() -> NetworkFiles {
    let mut text = String::new();
    if let Ok(file) = File::open("/etc/resolv.conf") {
        // Cut short or no text: what was read so far counts.
        let _ = file.take(MAX_RESOLV_BYTES).read_to_string(&mut text);
    }
    parse(&text)
}

fn parse(text: &str) -> NetworkFiles {
    let mut files = NetworkFiles::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let own = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
        match words.next() {
            Some("nameserver") => files
                .nameservers
                .extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
            Some("search" | "domain") => files.search = own(words),
            Some("options") => files.options = own(words),
            _ => {}
        }
    }
    files
}

/// The last of a name counts.
fn merge(own: Vec<String>, more: &[String]) -> Vec<String> {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = own
        .into_iter()
        .filter(|o| !more.iter().any(|m| name(m) == name(o)))
        .collect();
    all.extend(more.iter().cloned());
    all
}

/// Writes `hostname`, `hosts` and `resolv.conf` of a pod. May be repeated.
pub fn write_network_files(dir: &PodDir, wanted: &NetworkFiles) -> Result<(), RuntimeError> {
    let dir = network_dir(dir);
    fs::create_dir_all(&dir).map_err(|e| RuntimeError::io("create directory", &dir, e))?;
    let hostname = format!("{}\n", wanted.hostname);
    for (name, text) in [
        ("hostname", hostname),
        ("hosts", hosts(wanted)),
        ("resolv.conf", resolv(wanted)),
    ] {
        replace(&dir, name, &text).map_err(|e| RuntimeError::io("write", dir.join(name), e))?;
    }
    Ok(())
}

/// Another file in its place: whoever has the old one mounted keeps that.
fn replace(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let path = dir.join(name);
    if files::holds(&path, text.as_bytes(), DEFAULT_FILE_MODE) {
        return Ok(());
    }
    let temporary = dir.join(format!(".{name}"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(temporary, path)
}

fn hosts(wanted: &NetworkFiles) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if let Some(address) = wanted.address {
        let names: Vec<&str> = [wanted.fqdn.as_str(), wanted.hostname.as_str()]
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        text.push_str(&format!("{address}\t{}\n", names.join("\t")));
    }
    for alias in &wanted.aliases {
        text.push_str(&format!("{}\t{}\n", alias.address, alias.names.join("\t")));
    }
    text
}

fn resolv(wanted: &NetworkFiles) -> String {
    let servers = wanted.nameservers.iter();
    let mut text: String = servers.map(|a| format!("nameserver {a}\n")).collect();
    if !wanted.search.is_empty() {
        text.push_str(&format!("search {}\n", wanted.search.join(" ")));
    }
    if !wanted.options.is_empty() {
        text.push_str(&format!("options {}\n", wanted.options.join(" ")));
    }
    text
}

/// Where they are on the host.
pub(super) fn network_dir(dir: &PodDir) -> PathBuf {
    dir.path().join("files")
}

#[cfg(test)]
mod tests {
    use gantry_nodeagent_api::PodNames;

    use super::*;

    fn network() -> NodeNetwork {
        NodeNetwork {
            pod_cidr: "10.85.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "10.85.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    fn pod(names: PodNames) -> PodConfig {
        PodConfig {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            names,
            ..PodConfig::default()
        }
    }

    #[test]
    fn a_pod_adds_to_what_the_node_tells_it() {
        let names = PodNames {
            hostname: "h".to_owned(),
            fqdn: "h.sub.ns.svc.cluster.local".to_owned(),
            aliases: vec![HostAlias {
                address: "192.0.2.9".parse().unwrap(),
                names: vec!["hss.example".to_owned(), "hss".to_owned()],
            }],
            nameservers: vec!["192.0.2.53".parse().unwrap()],
            searches: vec!["example".to_owned(), "cluster.local".to_owned()],
            options: vec!["ndots:1".to_owned(), "edns0".to_owned()],
            ..PodNames::default()
        };
        let mut files = NetworkFiles::of(&pod(names), Some(&network()));
        files.address = Some("10.85.0.2".parse().unwrap());
        let lines = hosts(&files);
        assert!(
            lines.contains("10.85.0.2\th.sub.ns.svc.cluster.local\th\n"),
            "{lines}"
        );
        assert!(lines.ends_with("192.0.2.9\thss.example\thss\n"), "{lines}");
        assert_eq!(
            resolv(&files),
            "nameserver 10.85.0.1\nnameserver 192.0.2.53\n\
             search ns.svc.cluster.local svc.cluster.local cluster.local example\noptions ndots:1 edns0\n"
        );
        let alone = NetworkFiles::of(
            &pod(PodNames {
                dns_policy: DnsPolicy::None,
                nameservers: vec!["192.0.2.53".parse().unwrap()],
                ..PodNames::default()
            }),
            Some(&network()),
        );
        assert_eq!(resolv(&alone), "nameserver 192.0.2.53\n");
        assert_eq!(alone.hostname, "p");
    }

    #[test]
    fn the_nodes_own_servers_are_read() {
        let files = parse("# x\nnameserver 192.0.2.1\nnameserver bad\nsearch a b\noptions timeout:1\n");
        assert_eq!(files.nameservers, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            (files.search.join(" "), files.options.join(" ")),
            ("a b".to_owned(), "timeout:1".to_owned())
        );
    }
}
