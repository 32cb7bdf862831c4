//! The configuration: a YAML file.

use std::time::Duration;

use serde::Deserialize;

use crate::transactions::Limits;

/// All fields; unknown ones are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Its DiameterIdentity.
    pub host: String,
    /// Its Diameter realm.
    pub realm: String,
    /// The realm of the HSS; its own one if absent.
    #[serde(default)]
    pub hss_realm: Option<String>,
    /// The HSS by name, where more than one is in its realm.
    #[serde(default)]
    pub hss: Option<String>,
    /// The HSS or relays, as `host:port`.
    pub connect: Vec<String>,
    /// Country and network code, five or six digits.
    pub plmn: String,
    /// Tracking area code.
    #[serde(default = "area")]
    pub area: u16,
    /// Access point name of every session.
    pub apn: String,
    /// The SGW, as `host:port`; a name is looked up for each session.
    pub sgw: String,
    /// The PGW, an address or a name, which is looked up for each session.
    pub pgw: String,
    /// Requests on S11.
    #[serde(default)]
    pub s11: S11,
    /// Devices that are remembered, at most.
    #[serde(default = "devices")]
    pub max_devices: usize,
    /// Port for eNBs.
    #[serde(default = "enbs")]
    pub enb_port: u16,
    /// Port of GTPv2-C. The nextepc SGW sends its own requests to 2123 and nowhere else.
    #[serde(default = "gtp")]
    pub gtp_port: u16,
    /// Port of `/metrics` and `/healthz`.
    #[serde(default = "metrics")]
    pub metrics_port: u16,
    /// Port on the loopback for orders.
    #[serde(default = "control")]
    pub control_port: u16,
}

/// How requests on S11 are paced and repeated.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct S11 {
    /// Requests without an answer at once, at most.
    pub outstanding: usize,
    /// Requests in a second, at most, evenly spread.
    pub per_second: u32,
    /// T3-RESPONSE, in ms.
    pub t3_ms: u64,
    /// N3-REQUESTS: how often a request is sent in all.
    pub n3: u32,
}

impl Default for S11 {
    fn default() -> Self {
        Self {
            outstanding: 12,
            per_second: 120,
            t3_ms: 3000,
            n3: 3,
        }
    }
}

impl S11 {
    /// As transactions have them.
    pub fn limits(&self) -> Limits {
        Limits {
            outstanding: self.outstanding.max(1),
            between: Duration::from_secs(1) / self.per_second.max(1),
            t3: Duration::from_millis(self.t3_ms.max(1)),
            n3: self.n3.max(1),
        }
    }
}

fn area() -> u16 {
    1
}

fn devices() -> usize {
    16_384
}

fn enbs() -> u16 {
    36_412
}

fn gtp() -> u16 {
    gantry_lab_gtp::CONTROL_PORT
}

fn metrics() -> u16 {
    9090
}

fn control() -> u16 {
    9091
}
