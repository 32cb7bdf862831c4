//! Pods that would be more than their namespace allows.

use anyhow::Result;
use gantry_tests::busybox;
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
    Case {
        name: "a volume of two kinds, one the host's",
        kind: "pod security",
        protection: "pod-security,rules",
        attack: two_sources,
        told: "may not specify more than 1 volume type",
        harm: Harm::Told("\"uid\""),
    },
];

/// The namespace takes no more than a level.
fn enforce(tenant: &Tenant<'_>, level: &str) -> Result<()> {
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let (path, media) = (tenant.path(""), "application/merge-patch+json");
    let answer = tenant
        .api
        .ask("PATCH", path.trim_end_matches('/'), media, &patch.to_string())?;
    anyhow::ensure!(answer.code == 200, "{}", answer.body);
    Ok(())
}

fn host_network(tenant: &Tenant<'_>) -> Result<String> {
    enforce(tenant, "baseline")?;
    let mut pod = template(json!({"hostNetwork": true}));
    pod["metadata"]["name"] = json!("host");
    Ok(tenant.post("pods", &pod)?.body)
}

/// Of a volume with a kind that `restricted` allows and one that it does not.
fn two_sources(tenant: &Tenant<'_>) -> Result<String> {
    enforce(tenant, "restricted")?;
    let context = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1000,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({"name": "c", "image": busybox::IMAGE, "securityContext": context,
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let volume = json!({"name": "v", "image": {"reference": busybox::IMAGE}, "hostPath": {"path": "/tmp"}});
    let pod = json!({"metadata": {"name": "two"}, "spec": {"containers": [container], "volumes": [volume]}});
    Ok(tenant.post("pods", &pod)?.body)
}

fn in_template(tenant: &Tenant<'_>) -> Result<String> {
    enforce(tenant, "baseline")?;
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
