//! DNS, and files that the node writes for a container.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::pods;
use super::{Case, Harm, Tenant};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "60 DNS connections that ask nothing",
        kind: "dns",
        protection: "dns-places",
        attack: half_open,
        told: "DNSRateLimit",
        harm: Harm::Told("it holds"),
    },
    Case {
        name: "DNS questions that are none, without end",
        kind: "dns",
        protection: "dns-rate",
        attack: junk,
        told: "DNSRateLimit",
        harm: Harm::Told("nothing holds it back"),
    },
    Case {
        name: "an /etc/hosts of 64 MiB",
        kind: "node's files",
        protection: "network-files",
        attack: |tenant| overwrite(tenant, "hosts"),
        told: "Read-only file system",
        harm: Harm::Told("on the node has"),
    },
    Case {
        name: "an /etc/resolv.conf of 64 MiB",
        kind: "node's files",
        protection: "network-files",
        attack: |tenant| overwrite(tenant, "resolv.conf"),
        told: "Read-only file system",
        harm: Harm::Told("on the node has"),
    },
];

/// The node's DNS server.
const SERVER: &str = "GW=$(busybox awk '/nameserver/ {print $2; exit}' /etc/resolv.conf)";
/// How long it may take until it is held back.
const SOON: Duration = Duration::from_secs(20);

/// A syslog server sends on what it is told: here to port 53.
fn junk(tenant: &Tenant<'_>) -> Result<String> {
    let script = format!("{SERVER}; busybox syslogd -n -R $GW:53 & sleep 1; busybox yes | busybox logger");
    let pod = pods::run(tenant, &script)?;
    let began = Instant::now();
    let late = || began.elapsed() > SOON;
    pod.told_or("DNSRateLimit", || {
        late().then(|| "nothing holds it back".to_owned())
    })
}

fn half_open(tenant: &Tenant<'_>) -> Result<String> {
    let connect = "for i in $(busybox seq 60); do sleep 600 | busybox nc $GW 53 >/dev/null & done; wait";
    let pod = pods::run(tenant, &format!("{SERVER}; {connect}"))?;
    // proc_net_tcp(5): local address, port 53; state 1 is established.
    let held = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let to_dns = |line: &&str| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().is_some_and(|local| local.ends_with(":0035"));
            local && fields.nth(1) == Some("01")
        };
        Some(table.lines().filter(to_dns).count()).filter(|count| *count > 40)
    };
    pod.told_or("DNSRateLimit", || {
        held().map(|count| format!("it holds {count} connections"))
    })
}

fn overwrite(tenant: &Tenant<'_>, name: &str) -> Result<String> {
    let write = format!("busybox dd if=/dev/zero of=/etc/{name} bs=1M count=64 2>&1; exec sleep 600");
    let pod = pods::run(tenant, &write)?;
    tenant.wait("what became of it", || {
        let mib = fs::metadata(pod.dir().join("files").join(name)).map_or(0, |m| m.len() >> 20);
        if mib > 32 {
            return Some(format!("its {name} on the node has {mib} MiB"));
        }
        pod.log().ok().filter(|log| !log.is_empty())
    })
}
