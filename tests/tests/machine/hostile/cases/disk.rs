//! Pods that fill the disk.

use anyhow::Result;
use gantry_tests::busybox;
use serde_json::json;

use super::{Case, Harm, Tenant};

/// What the tenant sees without the protection.
const GOES_ON: Harm = Harm::Told("Running");

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an emptyDir of 1 GiB",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| fill(tenant, &write(tenant, "/v/big"), None),
        told: "Evicted: Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\".",
        harm: GOES_ON,
    },
    Case {
        name: "a file of 1 GiB",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| fill(tenant, &write(tenant, "/big"), Some("20Mi")),
        told: "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 20Mi.",
        harm: GOES_ON,
    },
    Case {
        name: "logs without end",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| fill(tenant, "busybox yes a line of a log", Some("9Mi")),
        told: "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 9Mi.",
        harm: GOES_ON,
    },
    Case {
        name: "folders in folders in folders",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| {
            let nest = "cd /; for i in $(busybox seq 200); do busybox mkdir d; cd d; done";
            fill(tenant, nest, None)
        },
        told: "Evicted: Pod has more than 1000000 files and directories",
        harm: GOES_ON,
    },
];

fn write(tenant: &Tenant<'_>, path: &str) -> String {
    format!(
        "busybox dd if=/dev/zero of={path} bs=1M count={}",
        tenant.size(64, 1024)
    )
}

/// A pod that runs `script`, and how it ends; that it runs if it does not end.
fn fill(tenant: &Tenant<'_>, script: &str, limit: Option<&str>) -> Result<String> {
    let limits = limit.map_or(json!({}), |limit| json!({"ephemeral-storage": limit}));
    let container = json!({"name": "c", "image": busybox::IMAGE, "args": [format!("{script}; sleep 10000")],
        "resources": {"limits": limits}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "10Mi"}}]});
    tenant.make("pods", &json!({"metadata": {"name": "filler"}, "spec": spec}))?;
    let status = || Some(tenant.get("pods/filler").ok()?["status"].take());
    let ended = || status().filter(|status| status["phase"] == "Failed");
    let seen = tenant
        .wait("its end", ended)
        .ok()
        .or_else(status)
        .unwrap_or_default();
    let text = |field: &str| seen[field].as_str().unwrap_or_default().to_owned();
    match text("reason").as_str() {
        "" => Ok(text("phase")),
        reason => Ok(format!("{reason}: {}", text("message"))),
    }
}
