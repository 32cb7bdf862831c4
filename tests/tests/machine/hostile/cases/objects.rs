//! What is wrong with an object.

use anyhow::Result;
use serde_json::{Value, json};

use super::floods::template;
use super::{Case, Harm, Tenant};

/// Taken: there is an object now.
const TAKEN: Harm = Harm::Told("\"uid\"");

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a service with a port twice",
        kind: "services",
        protection: "rules",
        attack: port_twice,
        told: "spec.ports[1]",
        harm: TAKEN,
    },
    Case {
        name: "a user that is none",
        kind: "security context",
        protection: "rules",
        attack: |tenant| context(tenant, json!({"runAsUser": -1})),
        told: "runAsUser",
        harm: TAKEN,
    },
    Case {
        name: "SELinux where there is none",
        kind: "security context",
        protection: "rules",
        attack: |tenant| context(tenant, json!({"seLinuxOptions": {"type": "t"}})),
        told: "seLinuxOptions",
        harm: TAKEN,
    },
    Case {
        name: "a name that is a path",
        kind: "names",
        protection: "rules",
        attack: |tenant| named(tenant, "../../etc/passwd"),
        told: "metadata.name",
        harm: TAKEN,
    },
    Case {
        name: "a name with a null byte",
        kind: "names",
        protection: "rules",
        attack: |tenant| named(tenant, "x\u{0}y"),
        told: "metadata.name",
        harm: TAKEN,
    },
    Case {
        name: "a name of ten thousand characters",
        kind: "names",
        protection: "rules",
        attack: |tenant| named(tenant, &"x".repeat(10_000)),
        told: "metadata.name",
        harm: TAKEN,
    },
];

fn port_twice(tenant: &Tenant<'_>) -> Result<String> {
    let port = |name: &str| json!({"name": name, "port": 80});
    let service = json!({"metadata": {"name": "twice"}, "spec": {"ports": [port("a"), port("b")]}});
    Ok(tenant.post("services", &service)?.body)
}

fn context(tenant: &Tenant<'_>, security: Value) -> Result<String> {
    let mut pod = template(json!({"securityContext": security}));
    pod["metadata"]["name"] = json!("context");
    Ok(tenant.post("pods", &pod)?.body)
}

fn named(tenant: &Tenant<'_>, name: &str) -> Result<String> {
    Ok(tenant
        .post("configmaps", &json!({"metadata": {"name": name}}))?
        .body)
}
