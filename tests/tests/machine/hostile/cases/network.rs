//! DNS, and files that the node writes for a container.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

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
        name: "17 pods with 20 DNS connections each",
        kind: "dns",
        protection: "dns-share",
        attack: all_connections,
        told: "the neighbour is answered",
        harm: Harm::Told("the neighbour is refused"),
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
    pod.told_or("DNSRateLimit", || {
        let count = connections();
        (count > 40).then(|| format!("it holds {count} connections"))
    })
}

/// Connections to DNS on this machine. proc_net_tcp(5): local address, port 53; state 1 is established.
fn connections() -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let to_dns = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(":0035"));
        local && fields.nth(1) == Some("01")
    };
    table.lines().filter(to_dns).count()
}

/// More than there are places for all, made again as often as they end. The neighbour is the host.
fn all_connections(tenant: &Tenant<'_>) -> Result<String> {
    let connect = "busybox mkfifo /tmp/quiet; exec 9<>/tmp/quiet; for i in $(busybox seq 20); do \
                   while :; do busybox nc $GW 53 <&9 >/dev/null 2>&1; busybox sleep 0.2; done & done; wait";
    let script = format!("{SERVER}; echo $GW; busybox mkdir -p /tmp; {connect}");
    let labels = json!({"app": "idle"});
    let template = json!({"metadata": {"labels": labels}, "spec": pods::of(pods::container(&script, json!({})))["spec"]});
    let spec = json!({"replicas": 17, "selector": {"matchLabels": labels}, "template": template});
    let name = json!({"name": "idle"});
    tenant.make("apps/v1/deployments", &json!({"metadata": name, "spec": spec}))?;
    tenant.wait("that all places are taken", || {
        (connections() >= 250).then_some(())
    })?;
    let gateway = tenant.wait("where DNS is", || {
        let pods = tenant.get("pods").ok()?;
        let name = pods["items"][0]["metadata"]["name"].as_str()?.to_owned();
        let log = tenant
            .api
            .get(&tenant.path(&format!("pods/{name}/log")))
            .ok()?
            .body;
        log.trim().parse::<IpAddr>().ok()
    })?;
    for _ in 0..50 {
        if let Err(error) = ask(gateway) {
            return Ok(format!("the neighbour is refused: {error:#}"));
        }
    }
    Ok("the neighbour is answered".to_owned())
}

/// One question over TCP: a name of the cluster that nobody has.
fn ask(server: IpAddr) -> Result<()> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, 53), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [&header[..], b"\x04none\x07cluster\x05local\0\0\x01\0\x01"].concat();
    let length = u16::try_from(question.len())?.to_be_bytes();
    stream.write_all(&[&length, &question[..]].concat())?;
    let mut answer = [0; 14];
    stream.read_exact(&mut answer)?;
    ensure!(answer[2..4] == header[..2], "it is no answer");
    Ok(())
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
