//! Subnets behind a pod: addresses that are neither the node's nor of a kind of their own.

use ipnet::Ipv4Net;

use crate::{NodeNetwork, PodConfig};

/// Subnets that one pod may have behind it.
pub const MAX_POD_SUBNETS: usize = 16;

/// Networks that are nobody's to have: this one, loopback, link-local, groups and what is reserved (RFC 6890, RFC 1112).
const SPECIAL: [&str; 4] = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];

/// Reads subnets as people write them: network address and prefix length.
pub fn read_subnets(texts: &[String]) -> Result<Vec<Ipv4Net>, String> {
    let read = |text: &String| {
        let subnet: Ipv4Net = text
            .parse()
            .map_err(|_| format!("`{text}` is no IPv4 network, such as 10.45.0.0/16"))?;
        match subnet.to_string() == *text {
            true => Ok(subnet),
            false => Err(format!("`{text}` is written as {subnet}")),
        }
    };
    let subnets: Vec<Ipv4Net> = texts.iter().map(read).collect::<Result<_, _>>()?;
    check_subnets(&subnets)?;
    Ok(subnets)
}

/// What is wrong with them on any node.
pub fn check_subnets(subnets: &[Ipv4Net]) -> Result<(), String> {
    if subnets.len() > MAX_POD_SUBNETS {
        return Err(format!(
            "{} subnets are behind it, and {MAX_POD_SUBNETS} may be",
            subnets.len()
        ));
    }
    for (at, subnet) in subnets.iter().enumerate() {
        let network = subnet.trunc();
        if network != *subnet {
            return Err(format!("subnet {subnet} has more than its prefix: {network}"));
        }
        if subnets[..at].contains(subnet) {
            return Err(format!("subnet {subnet} is there twice"));
        }
        let special = SPECIAL.map(|text| text.parse::<Ipv4Net>().expect("a network"));
        if let Some(special) = special.iter().find(|special| overlap(special, subnet)) {
            return Err(format!(
                "subnet {subnet} holds addresses of {special}, which nobody has"
            ));
        }
    }
    Ok(())
}

/// What is wrong with those of a pod on a node of this network.
pub(super) fn check_pod(pod: &PodConfig, network: Option<&NodeNetwork>) -> Result<(), String> {
    if pod.host_network && !pod.subnets.is_empty() {
        return Err("it has the host's network, and so no subnets behind it".to_owned());
    }
    check_subnets(&pod.subnets)?;
    let Some(network) = network else {
        return Ok(());
    };
    let taken = [
        ("pods'", network.pod_cidr),
        ("services'", network.service_cidr),
        ("the gateway's", network.gateway.into()),
    ];
    for subnet in &pod.subnets {
        if let Some((whose, net)) = taken.iter().find(|(_, net)| overlap(net, subnet)) {
            return Err(format!("subnet {subnet} holds {whose} addresses ({net})"));
        }
    }
    Ok(())
}

/// Of two networks that have an address in common one holds the other.
fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}
