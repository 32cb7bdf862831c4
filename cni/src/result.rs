//! What ADD returns (CNI specification, section 5, "ADD Success").

use serde_json::{Value, json};

use crate::config::Config;
use crate::names::{mac_of_link, show_mac};
use crate::pod::PodLink;

/// The result in the form of the configuration's version.
pub fn success(config: &Config, pod: &PodLink, netns: &str) -> Value {
    let mut host = json!({"name": pod.link, "mac": show_mac(&mac_of_link(pod.link))});
    let mut inner = json!({"name": pod.ifname, "mac": show_mac(&pod.pod_mac()), "sandbox": netns});
    let mut ip = json!({
        "address": format!("{}/32", pod.address), "gateway": pod.gateway.to_string(), "interface": 1,
    });
    match config.cni_version.as_str() {
        "0.4.0" => ip["version"] = json!("4"),
        "1.0.0" => {}
        _ => {
            host["mtu"] = json!(pod.mtu);
            inner["mtu"] = json!(pod.mtu);
        }
    }
    json!({
        "cniVersion": config.cni_version,
        "interfaces": [host, inner],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": pod.gateway.to_string()}],
        "dns": {},
    })
}
