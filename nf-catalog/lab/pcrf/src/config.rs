//! The configuration: a YAML file.

use serde::Deserialize;

/// All fields; unknown ones are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Its DiameterIdentity.
    pub host: String,
    /// Its Diameter realm.
    pub realm: String,
    /// Peers that it connects to itself, as `host:port`: relays.
    #[serde(default)]
    pub connect: Vec<String>,
    /// Sessions at once, at most.
    #[serde(default = "sessions")]
    pub max_sessions: usize,
    /// Port for peers.
    #[serde(default = "diameter")]
    pub port: u16,
    /// Port of `/metrics` and `/healthz`.
    #[serde(default = "metrics")]
    pub metrics_port: u16,
}

fn sessions() -> usize {
    65_536
}

fn diameter() -> u16 {
    3868
}

fn metrics() -> u16 {
    9090
}
