//! Templates of packages that cost more than they are worth.

use anyhow::Result;
use serde_json::json;

use super::{Case, Harm, Process, Tenant};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "loops within loops",
        kind: "template steps",
        protection: "templates",
        attack: |tenant| {
            bomb(
                tenant,
                "{% for i in range(9999) %}{% for j in range(9999) %}xxxxxxxx{% endfor %}{% endfor %}",
            )
        },
        told: "TemplateTooExpensive",
        harm: Harm::Memory(Process::Orchestrator, 200),
    },
    Case {
        name: "a file of 400 MB",
        kind: "template output",
        protection: "templates",
        attack: |tenant| bomb(tenant, "{% for i in range(400) %}{{ 'x' * 1000000 }}{% endfor %}"),
        told: "TemplateTooLarge",
        harm: Harm::Memory(Process::Orchestrator, 200),
    },
];

/// Publishes a package with this template, makes a function of it, and returns what its conditions say.
pub(super) fn bomb(tenant: &Tenant<'_>, template: &str) -> Result<String> {
    let package = &tenant.namespace;
    let container = json!({"name": "c", "image": "none:1", "memory": "16Mi",
        "cpu": {"mode": "shared", "request": "10m", "limit": "100m"}});
    let spec = json!({"package": package, "version": "1.0.0", "family": "support", "role": "BOMB", "plane": "signalling",
        "description": "a bomb", "containers": [container], "templates": {"main.cfg": template},
        "config": [{"template": "main.cfg", "path": "/etc/main.cfg"}]});
    let name = format!("{package}-1.0.0");
    let object =
        json!({"apiVersion": "gantry.dev/v1", "kind": "NfPackage", "metadata": {"name": name}, "spec": spec});
    tenant.make_outside("/apis/gantry.dev/v1/nfpackages", &object)?;
    let function = json!({"metadata": {"name": "bomb"}, "spec": {"package": package, "version": "1.0.0", "replicas": 1}});
    tenant.make("gantry.dev/v1/networkfunctions", &function)?;
    tenant.condition("gantry.dev/v1/networkfunctions/bomb", "TemplateFailure")
}
