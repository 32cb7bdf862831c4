//! The nft table: masquerade, and how much of the kernel's table of connections pods may take for it. The kernel tracks whatever
//! passes its IP stack once anybody has a rule for NAT, and when the table is full nobody on the node opens a connection any more.
//!
//! What no program has seen, and so has no priority, is not taken from pods' links at all.
//!
//! What is between pods does not pass it. Questions to the node's DNS are not tracked. The rest is bounded for each group of pods
//! (whose number is the packet's priority: `ebpf/prog`), and, what comes to the gateway's address, for each pod. Other packets at
//! the host device are tracked: somebody else's rules may have translated their addresses.

use crate::config::Config;
use crate::names;

/// New connections of one group in a second. The kernel clears its lists slower than it fills them, so that comes first.
const PER_SECOND: u32 = 500;
/// At once, after a silence.
const BURST: u32 = 2000;
/// Connections of one group at one time: a full node has some dozen groups, and each new one costs a walk through the others.
const MOST: u32 = 8192;
/// The part of the kernel's table that they may take, where that is less.
const PART: u32 = 32;
/// Connections of one pod to the gateway, which are to the node's own few services.
const MOST_TO_GATEWAY: u32 = 512;

/// Connections to the outside that a group of pods may have on this node.
pub fn most() -> u32 {
    // Not there yet: the kernel's module is loaded with the first rule.
    let table = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok();
    let table = table.and_then(|text| text.trim().parse::<u32>().ok());
    table.map_or(MOST, |entries| (entries / PART).min(MOST))
}

/// The whole table, as a script that replaces it.
pub fn rules(config: &Config, most: u32) -> String {
    let table = names::nft_table(&config.instance);
    let device = names::host_device(&config.instance);
    let links = names::pod_link_prefix(&config.instance);
    let (pods, services, gateway) = (config.pod_cidr, config.service_cidr, config.gateway);
    let dns = "meta l4proto { tcp, udp } th";
    // Not another instance's host devices, of which some begin alike.
    let pod_link = format!(r#"iifname "{links}*" iifname != "gh*" iifname != "gp*""#);
    let drop = "counter name beyond_share drop";
    format!(
        r#"table ip {table} {{}}
delete table ip {table}
table ip {table} {{
    counter beyond_share {{}}
    counter unseen {{}}
    set opening {{ typeof meta priority; size 4096; flags dynamic, timeout; timeout 1m; }}
    set open {{ typeof meta priority; size 4096; flags dynamic; }}
    set opening_gateway {{ type ipv4_addr; size 65536; flags dynamic, timeout; timeout 1m; }}
    set open_gateway {{ type ipv4_addr; size 65536; flags dynamic; }}
    chain untracked_questions {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{device}" ip daddr {gateway} {dns} dport 53 notrack
    }}
    chain untracked_answers {{
        type filter hook output priority raw; policy accept;
        oifname "{device}" ip saddr {gateway} {dns} sport 53 notrack
    }}
    chain bounded {{
        type filter hook prerouting priority mangle; policy accept;
        iifname "{device}" ct status ! confirmed jump to_gateway
        {pod_link} meta priority none counter name unseen drop
        iifname "{links}*" ct status ! confirmed jump outside
    }}
    chain outside {{
        add @opening {{ meta priority limit rate over {PER_SECOND}/second burst {BURST} packets }} {drop}
        add @open {{ meta priority ct count over {most} }} {drop}
    }}
    chain to_gateway {{
        add @opening_gateway {{ ip saddr limit rate over {PER_SECOND}/second burst {BURST} packets }} {drop}
        add @open_gateway {{ ip saddr ct count over {MOST_TO_GATEWAY} }} {drop}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {pods} ip daddr != {{ {pods}, {services} }} oifname != "{device}" masquerade
    }}
}}
"#
    )
}
