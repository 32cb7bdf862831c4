//! How a pod is called, and how it asks for others.

use gantry_nodeagent_api::{DnsPolicy, HostAlias, PodNames};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::super::meta;
use super::super::world::Work;

/// Longest host name in the kernel, in bytes.
const MAX_HOSTNAME: usize = 64;

/// In words what cannot be.
pub(super) fn of(work: &Work<'_>, pod: &Pod, spec: &PodSpec) -> Result<PodNames, String> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let mut hostname = text(&spec.hostname);
    let subdomain = text(&spec.subdomain);
    let mut fqdn = String::new();
    if !subdomain.is_empty() {
        let own = if hostname.is_empty() {
            meta::name(&pod.metadata)
        } else {
            &hostname
        };
        let namespace = meta::namespace(&pod.metadata);
        let domain = work.settings.cluster_domain.trim_end_matches('.');
        fqdn = format!("{own}.{subdomain}.{namespace}.svc.{domain}");
        if spec.set_hostname_as_fqdn == Some(true) {
            if fqdn.len() > MAX_HOSTNAME {
                return Err(format!(
                    "FQDN {fqdn} is too long ({MAX_HOSTNAME} characters is the max, {} characters requested)",
                    fqdn.len()
                ));
            }
            hostname.clone_from(&fqdn);
        }
    }
    let mut aliases = Vec::new();
    for alias in spec.host_aliases.iter().flatten() {
        let address = alias.ip.parse();
        aliases.push(HostAlias {
            address: address.map_err(|_| format!("hostAliases: {:?} is no address", alias.ip))?,
            names: alias.hostnames.clone().unwrap_or_default(),
        });
    }
    let dns = spec.dns_config.clone().unwrap_or_default();
    let servers = dns.nameservers.iter().flatten();
    let options = dns.options.iter().flatten().filter_map(|option| {
        let name = option.name.clone()?;
        Some(match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name,
        })
    });
    Ok(PodNames {
        hostname,
        fqdn,
        aliases,
        dns_policy: dns_policy(spec),
        nameservers: servers
            .map(|s| s.parse().map_err(|_| format!("dnsConfig: {s:?} is no address")))
            .collect::<Result<_, _>>()?,
        searches: dns.searches.unwrap_or_default(),
        options: options.collect(),
    })
}

/// As in Kubernetes, a pod on the host's network asks whom the host asks unless it says otherwise.
fn dns_policy(spec: &PodSpec) -> DnsPolicy {
    match spec.dns_policy.as_deref() {
        Some("None") => DnsPolicy::None,
        Some("Default") => DnsPolicy::Node,
        Some("ClusterFirstWithHostNet") => DnsPolicy::Cluster,
        _ if spec.host_network == Some(true) => DnsPolicy::Node,
        _ => DnsPolicy::Cluster,
    }
}
