//! The network configuration on standard input, and its validation: once, before anything is touched.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::CniError;

/// Versions of the specification that we speak.
pub const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// As decoded. Fields that the specification lets runtimes add are known and, where we have no use for
/// them, ignored; others are refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawConfig {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    _type: String,
    data_dir: PathBuf,
    bpf_dir: PathBuf,
    instance: String,
    pod_cidr: Ipv4Net,
    service_cidr: Ipv4Net,
    gateway: Ipv4Addr,
    #[serde(default = "default_mtu")]
    mtu: u32,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(
        default,
        rename = "cni.dev/valid-attachments",
        deserialize_with = "list_or_null"
    )]
    valid_attachments: Option<Vec<Attachment>>,
    /// The same list under the name that the specification had first: libcni sends both.
    #[serde(default, rename = "cni.dev/attachments", deserialize_with = "list_or_null")]
    attachments: Option<Vec<Attachment>>,
    #[serde(default, rename = "cniVersions")]
    _cni_versions: Value,
    #[serde(default, rename = "capabilities")]
    _capabilities: Value,
    #[serde(default, rename = "args")]
    _args: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    share_group: Option<String>,
    #[serde(default)]
    realm: Option<String>,
}

/// One attachment that GC must keep.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// A field that is there is a list, be it null: libcni writes an empty list so.
fn list_or_null<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Ok(Some(Option::deserialize(field)?.unwrap_or_default()))
}

fn default_mtu() -> u32 {
    1500
}

/// A valid configuration.
#[derive(Debug)]
pub struct Config {
    /// One of [`VERSIONS`].
    pub cni_version: String,
    /// Where intents and address reservations are kept.
    pub data_dir: PathBuf,
    /// Where the datapath is pinned.
    pub bpf_dir: PathBuf,
    /// Tells this Gantry's links and tables from another's: 1 to 6 lower-case letters and digits.
    pub instance: String,
    /// The node's pods.
    pub pod_cidr: Ipv4Net,
    /// The cluster's services.
    pub service_cidr: Ipv4Net,
    /// The host's address in `pod_cidr`.
    pub gateway: Ipv4Addr,
    /// Of the pods' links, bytes.
    pub mtu: u32,
    /// The address that the runtime asks for.
    pub address: Option<Ipv4Addr>,
    /// Pods of one group have their share of what all use together: the flow tables, connections to the outside.
    pub share_group: Option<String>,
    /// Pods of one realm reach the subnets behind each other.
    pub realm: Option<String>,
    /// What ADD returned, in a CHECK.
    pub prev_result: Option<Value>,
    /// Attachments that GC must keep; `None` in other commands.
    pub valid_attachments: Option<Vec<Attachment>>,
}

fn wrong(field: &'static str, problem: impl Into<String>) -> CniError {
    CniError::Config {
        field,
        problem: problem.into(),
    }
}

impl RawConfig {
    /// Checks everything that can be checked without touching the node.
    pub fn validate(self) -> Result<Config, CniError> {
        if !VERSIONS.contains(&self.cni_version.as_str()) {
            let supported = VERSIONS.join(", ");
            return Err(CniError::Version {
                found: self.cni_version,
                supported,
            });
        }
        if self.name.is_empty() {
            return Err(wrong("name", "is missing"));
        }
        for (field, path) in [("dataDir", &self.data_dir), ("bpfDir", &self.bpf_dir)] {
            if !path.is_absolute() || path.parent().is_none() {
                return Err(wrong(field, "must be an absolute path below /"));
            }
        }
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(1..=6).contains(&self.instance.len()) || !self.instance.chars().all(good) {
            return Err(wrong("instance", "must be 1 to 6 lower-case letters and digits"));
        }
        let (pods, services) = (self.pod_cidr.trunc(), self.service_cidr.trunc());
        // Beyond a /8 the datapath could not tell flows from behind two pods apart (`behind::tag` of `ebpf/common`).
        if !(8..=30).contains(&pods.prefix_len()) {
            return Err(wrong(
                "podCidr",
                "must hold at least one pod: /30 or larger, to /8",
            ));
        }
        if pods.contains(&services) || services.contains(&pods) {
            return Err(wrong("serviceCidr", "must not overlap podCidr"));
        }
        if !is_host_address(&pods, self.gateway) {
            return Err(wrong("gateway", "must be a host address in podCidr"));
        }
        if !(576..=65_535).contains(&self.mtu) {
            return Err(wrong("mtu", "must be 576 to 65535 bytes"));
        }
        let address = requested(&self.runtime_config.ips, &pods, self.gateway)?;
        Ok(Config {
            cni_version: self.cni_version,
            data_dir: self.data_dir,
            bpf_dir: self.bpf_dir,
            instance: self.instance,
            pod_cidr: pods,
            service_cidr: services,
            gateway: self.gateway,
            mtu: self.mtu,
            address,
            share_group: self.runtime_config.share_group,
            realm: self.runtime_config.realm,
            prev_result: self.prev_result,
            valid_attachments: self.valid_attachments.or(self.attachments),
        })
    }
}

/// Is the address in the network, and neither its first nor its last?
pub fn is_host_address(net: &Ipv4Net, address: Ipv4Addr) -> bool {
    net.contains(&address) && address != net.network() && address != net.broadcast()
}

fn requested(ips: &[String], pods: &Ipv4Net, gateway: Ipv4Addr) -> Result<Option<Ipv4Addr>, CniError> {
    const FIELD: &str = "runtimeConfig.ips";
    let text = match ips {
        [] => return Ok(None),
        [one] => one,
        _ => return Err(wrong(FIELD, "must hold one address")),
    };
    let bare = text.split('/').next().unwrap_or(text);
    let address: Ipv4Addr = bare
        .parse()
        .map_err(|_| wrong(FIELD, format!("holds {text:?}: not IPv4")))?;
    if !is_host_address(pods, address) || address == gateway {
        return Err(wrong(
            FIELD,
            format!("holds {address}: not a pod address of {pods}"),
        ));
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "gantry", "type": "gantry-cni",
            "dataDir": "/d", "bpfDir": "/b", "instance": "ab12cd",
            "podCidr": "10.85.0.0/24", "serviceCidr": "10.86.0.0/16", "gateway": "10.85.0.1",
        })
    }

    fn with(field: &str, value: Value) -> Result<Config, String> {
        let mut config = base();
        config[field] = value;
        let raw: RawConfig = serde_json::from_value(config).map_err(|e| e.to_string())?;
        raw.validate().map_err(|e| e.to_string())
    }

    #[test]
    fn accepts_what_runtimes_send() {
        let config = with("runtimeConfig", json!({"ips": ["10.85.0.7/32"]})).unwrap();
        assert_eq!(config.address, Some(Ipv4Addr::new(10, 85, 0, 7)));
        assert_eq!(config.mtu, 1500);
        assert!(with("capabilities", json!({"ips": true})).is_ok());
        let one = json!([{"containerID": "c", "ifname": "eth0"}]);
        assert_eq!(
            with("cni.dev/attachments", one)
                .unwrap()
                .valid_attachments
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            with("cni.dev/valid-attachments", json!(null))
                .unwrap()
                .valid_attachments,
            Some(vec![])
        );
        assert_eq!(with("mtu", json!(1400)).unwrap().valid_attachments, None);
    }

    #[test]
    fn refuses_with_the_field_named() {
        let cases = [
            ("cniVersion", json!("0.3.1"), "0.3.1"),
            ("name", json!(""), "name"),
            ("instance", json!("UPPER"), "instance"),
            ("instance", json!("toolong1"), "instance"),
            ("dataDir", json!("relative"), "dataDir"),
            ("serviceCidr", json!("10.85.0.128/25"), "serviceCidr"),
            ("gateway", json!("10.85.0.0"), "gateway"),
            ("gateway", json!("10.99.0.1"), "gateway"),
            ("mtu", json!(10), "mtu"),
            ("podCidr", json!("10.85.0.0/31"), "podCidr"),
            ("podCidr", json!("8.0.0.0/7"), "podCidr"),
            (
                "runtimeConfig",
                json!({"ips": ["10.85.0.1"]}),
                "runtimeConfig.ips",
            ),
            ("runtimeConfig", json!({"ips": ["fd00::1"]}), "runtimeConfig.ips"),
            ("bogus", json!(1), "bogus"),
        ];
        for (field, value, named) in cases {
            let error = with(field, value.clone()).unwrap_err();
            assert!(error.contains(named), "{field}={value}: {error}");
        }
    }
}
