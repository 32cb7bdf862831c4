//! Pods that would be more than their namespace allows.

use anyhow::Result;
use serde_json::json;

use super::floods::{deployment, template};
use super::{Case, Harm, Tenant};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a pod with the host's network",
        kind: "pod security",
        protection: "pod-security",
        attack: host_network,
        told: "violates PodSecurity",
        harm: Harm::Told("\"uid\""),
    },
    Case {
        name: "a template with the host's network",
        kind: "pod security",
        protection: "pod-security",
        attack: in_template,
        told: "violates PodSecurity",
        harm: Harm::Told("3 pods are made"),
    },
];

/// The namespace takes no more than baseline.
fn baseline(tenant: &Tenant<'_>) -> Result<()> {
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let (path, media) = (tenant.path(""), "application/merge-patch+json");
    let answer = tenant
        .api
        .ask("PATCH", path.trim_end_matches('/'), media, &patch.to_string())?;
    anyhow::ensure!(answer.code == 200, "{}", answer.body);
    Ok(())
}

fn host_network(tenant: &Tenant<'_>) -> Result<String> {
    baseline(tenant)?;
    let mut pod = template(json!({"hostNetwork": true}));
    pod["metadata"]["name"] = json!("host");
    Ok(tenant.post("pods", &pod)?.body)
}

fn in_template(tenant: &Tenant<'_>) -> Result<String> {
    baseline(tenant)?;
    tenant.make(
        "apps/v1/deployments",
        &deployment(3, template(json!({"hostNetwork": true}))),
    )?;
    tenant.wait("what became of its Deployment", || {
        let sets = tenant.get("apps/v1/replicasets").ok()?;
        let status = &sets["items"].get(0)?["status"];
        let conditions = status["conditions"].to_string();
        match status["replicas"].as_u64() {
            Some(3) => Some("3 pods are made".to_owned()),
            _ => conditions.contains("ReplicaFailure").then_some(conditions),
        }
    })
}
