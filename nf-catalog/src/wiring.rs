//! What a function offers to others, and whom it talks to.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A connection point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interface {
    /// Name, for example `sip`, `n4`.
    pub name: String,
    /// Application protocol, for example `SIP`, `PFCP`.
    pub protocol: String,
    /// Transport.
    #[serde(default)]
    pub transport: Transport,
    /// Port; none where packets of any kind come (SGi).
    #[serde(default)]
    pub port: u16,
    /// Network (segment); `pod` is the pod network.
    #[serde(default = "pod_network")]
    pub network: String,
    /// True: others reach it by the function's name: at a virtual address that spreads new flows over the instances, or, of a
    /// headless function, at the instances themselves.
    #[serde(default)]
    pub service: bool,
    /// The reference point at which those outside of the service talk to it: devices, the radio side, other networks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference_point: String,
    /// Addresses behind each instance (a PGW's UEs), routed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
}

fn pod_network() -> String {
    "pod".to_owned()
}

/// The part of a pool that an instance owns: the one with its index. In templates: `self.subnet.cidr`, `.gateway`, `.prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subnet {
    /// The value that holds the pool, for example `uePool` with `10.45.0.0/16`.
    pub pool: String,
    /// Length of each instance's prefix in bits.
    pub prefix: u8,
}

impl Subnet {
    /// The pool as the values have it; in words what is wrong.
    pub fn pool_of(&self, values: &BTreeMap<String, Value>) -> Result<Ipv4Net, String> {
        let value = values
            .get(&self.pool)
            .ok_or_else(|| format!("there is no value `{}`", self.pool))?;
        let text = value.as_str().unwrap_or_default();
        let pool: Ipv4Net = text.parse().map_err(|_| {
            format!(
                "value `{}` is {value}, and no range such as 10.45.0.0/16",
                self.pool
            )
        })?;
        if pool.trunc() == pool {
            Ok(pool)
        } else {
            Err(format!("value `{}` is {pool}: write {}", self.pool, pool.trunc()))
        }
    }

    /// For how many instances the pool has room; in words what is wrong.
    pub fn instances(&self, pool: Ipv4Net) -> Result<u64, String> {
        let parts = u32::from(self.prefix)
            .checked_sub(u32::from(pool.prefix_len()))
            .filter(|_| self.prefix <= LONGEST_PREFIX)
            .ok_or_else(|| {
                format!(
                    "prefix {} is no part of {pool}: {} to {LONGEST_PREFIX}",
                    self.prefix,
                    pool.prefix_len()
                )
            })?;
        Ok(1 << parts)
    }

    /// What the instance with this index owns; in words why there is nothing for it.
    pub fn of(&self, values: &BTreeMap<String, Value>, index: u32) -> Result<Ipv4Net, String> {
        let pool = self.pool_of(values)?;
        let instances = self.instances(pool)?;
        if u64::from(index) >= instances {
            return Err(format!(
                "{pool} has room for {instances} instances with /{}, and none for number {index}",
                self.prefix
            ));
        }
        let size = 1u64 << (32 - u32::from(self.prefix));
        let first = u64::from(u32::from(pool.network())) + u64::from(index) * size;
        let first = u32::try_from(first).map_err(|_| format!("{pool} ends before instance {index}"))?;
        Ipv4Net::new(first.into(), self.prefix).map_err(|e| e.to_string())
    }
}

/// An instance has at least a gateway and one address more.
const LONGEST_PREFIX: u8 = 30;

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A function that it talks to. In templates: `peers.<function>.host`, `.port` and, unless that is headless, `.vip`; in the files of
/// an instance `.instances`, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Need {
    /// Name of the peer in templates and in `peers` of a NetworkFunction.
    pub function: String,
    /// Role it must have.
    pub role: String,
    /// Its interface that is used.
    pub interface: String,
    /// The reference point between the two, as 3GPP names it: `Mw`, `Cx`, `S5`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference_point: String,
    /// True: an instance starts once one of that function is ready, and it goes before that does.
    #[serde(default)]
    pub wait: bool,
    /// True: it may be left out; templates ask `if peers.<function> is defined`.
    #[serde(default)]
    pub optional: bool,
}

/// Whom the pods of a function ask for names, in place of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfDns {
    /// A peer (its name under `needs`) with a virtual address that answers DNS.
    pub server: String,
    /// Domains that short names are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// Options of resolv.conf(5).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_instance_owns_its_part_of_the_pool() {
        let subnet = |prefix| Subnet {
            pool: "uePool".to_owned(),
            prefix,
        };
        let of = |pool: Value, prefix, index| {
            let values = BTreeMap::from([("uePool".to_owned(), pool)]);
            subnet(prefix).of(&values, index).map(|net| net.to_string())
        };
        assert_eq!(of(json!("10.45.0.0/16"), 20, 0), Ok("10.45.0.0/20".to_owned()));
        assert_eq!(of(json!("10.45.0.0/16"), 20, 15), Ok("10.45.240.0/20".to_owned()));
        assert_eq!(
            of(json!("255.255.255.0/24"), 25, 1),
            Ok("255.255.255.128/25".to_owned())
        );
        for (pool, prefix, index) in [
            (json!("10.45.0.0/16"), 20, 16),
            (json!("10.45.0.0/16"), 8, 0),
            (json!("10.45.0.0/16"), 31, 0),
            (json!("10.45.1.0/16"), 20, 0),
            (json!(7), 20, 0),
        ] {
            assert!(
                of(pool.clone(), prefix, index).is_err(),
                "{pool} {prefix} {index}"
            );
        }
    }
}
