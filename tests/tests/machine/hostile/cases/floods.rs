//! Too many of something.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Case, Harm, Process, Tenant};

/// More than may wait in a namespace.
const MANY_PODS: u64 = 4_100;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "two million replicas",
        kind: "replicas",
        protection: "replicas",
        attack: replicas,
        told: "TooManyWaiting",
        harm: Harm::Memory(Process::Orchestrator, 500),
    },
    Case {
        name: "a million replicas of a ReplicaSet",
        kind: "replicas",
        protection: "replicas",
        attack: replica_set,
        told: "TooManyWaiting",
        harm: Harm::Memory(Process::Orchestrator, 500),
    },
    Case {
        name: "ten Deployments of 900",
        kind: "replicas",
        protection: "replicas",
        attack: crowd,
        told: "of namespace tenant-",
        harm: Harm::Told("pods wait"),
    },
    Case {
        name: "ConfigMaps of a megabyte each",
        kind: "storage",
        protection: "namespace-bytes",
        attack: storage,
        told: "exceeded quota",
        harm: Harm::Told("70 of 70 taken"),
    },
    Case {
        name: "one full namespace after the other",
        kind: "storage",
        protection: "namespace-bytes",
        attack: namespaces,
        told: "has made come to",
        harm: Harm::Told("all are full"),
    },
    Case {
        name: "more Events than anybody reads",
        kind: "events",
        protection: "events",
        attack: events,
        told: "5000 are kept",
        harm: Harm::Told("5300 are kept"),
    },
];

/// A pod that asks for nothing, with more in its spec.
pub(super) fn template(more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "none:1"}]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({"metadata": {"labels": {"app": "h"}}, "spec": spec})
}

/// A Deployment `many` of such pods.
pub(super) fn deployment(replicas: u32, template: Value) -> Value {
    json!({"metadata": {"name": "many"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "h"}}, "template": template}})
}

/// Makes a Deployment and returns the conditions of its ReplicaSet, once there is one of a failure.
pub(super) fn failure(tenant: &Tenant<'_>, deployment: &Value) -> Result<String> {
    tenant.make("apps/v1/deployments", deployment)?;
    tenant.wait("ReplicaFailure of a ReplicaSet", || {
        let sets = tenant.get("apps/v1/replicasets").ok()?;
        let mut conditions = sets["items"]
            .as_array()?
            .iter()
            .map(|s| s["status"]["conditions"].to_string());
        conditions.find(|c| c.contains("ReplicaFailure"))
    })
}

fn replicas(tenant: &Tenant<'_>) -> Result<String> {
    failure(tenant, &deployment(2_000_000, template(json!({}))))
}

fn replica_set(tenant: &Tenant<'_>) -> Result<String> {
    let mut set = deployment(1_000_000, template(json!({})));
    set["metadata"]["name"] = json!("set");
    tenant.make("apps/v1/replicasets", &set)?;
    tenant.condition("apps/v1/replicasets/set", "ReplicaFailure")
}

/// Each alone asks for less than an owner may have; they fit nowhere.
fn crowd(tenant: &Tenant<'_>) -> Result<String> {
    let large = json!({"resources": {"requests": {"memory": "900Gi"}}, "name": "c", "image": "none:1"});
    for number in 0..10 {
        let mut many = deployment(900, template(json!({"containers": [large]})));
        many["metadata"]["name"] = json!(format!("many-{number}"));
        tenant.make("apps/v1/deployments", &many)?;
    }
    tenant.wait("that its namespace has too many that wait", || {
        let sets = tenant.get("apps/v1/replicasets").ok()?;
        let mut conditions = sets["items"]
            .as_array()?
            .iter()
            .map(|s| s["status"]["conditions"].to_string());
        let told = conditions.find(|c| c.contains("of namespace"));
        let page = tenant.get("pods?limit=1").ok()?;
        let pods = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) + 1;
        told.or_else(|| (pods > MANY_PODS).then(|| format!("{pods} pods wait")))
    })
}

/// Half as many again as a namespace may keep, and many times as many.
fn storage(tenant: &Tenant<'_>) -> Result<String> {
    let wanted = tenant.size(70, 300);
    let object = |i| json!({"metadata": {"name": format!("large{i}")}, "data": {"a": "x".repeat(1 << 20)}});
    for taken in 0..wanted {
        let answer = tenant.post("configmaps", &object(taken))?;
        if answer.code != 201 {
            return Ok(answer.body);
        }
    }
    Ok(format!("{wanted} of {wanted} taken"))
}

/// Three that the tenant makes, and nearly as much in each as one may keep.
fn namespaces(tenant: &Tenant<'_>) -> Result<String> {
    for number in 0..3 {
        let name = format!("{}-{number}", tenant.namespace);
        tenant.make_outside("/api/v1/namespaces", &json!({"metadata": {"name": name}}))?;
        for map in 0..60 {
            let object =
                json!({"metadata": {"name": format!("large{map}")}, "data": {"a": "x".repeat(1 << 20)}});
            let maps = format!("/api/v1/namespaces/{name}/configmaps");
            let answer = tenant.api.post(&maps, &object)?;
            if answer.code != 201 {
                return Ok(answer.body);
            }
        }
    }
    Ok("all are full".to_owned())
}

/// Old ones are taken away now and then.
fn events(tenant: &Tenant<'_>) -> Result<String> {
    let event = |i| json!({"metadata": {"name": format!("flood{i}")}, "involvedObject": {"kind": "Pod", "name": "x"}, "reason": "Flood"});
    let events: Vec<Value> = (0..tenant.size(5_300, 100_000)).map(event).collect();
    let codes = tenant.api.post_many(&tenant.path("events"), &events)?;
    let refused = codes.iter().filter(|code| **code != 201).count();
    anyhow::ensure!(refused == 0, "{refused} of {} were refused", codes.len());
    let kept = || {
        let list = tenant.get("events?limit=1").ok()?;
        list["metadata"]["remainingItemCount"]
            .as_u64()
            .map(|more| more + 1)
    };
    let few = tenant.wait("how many are kept", || kept().filter(|kept| *kept <= 5_000));
    let kept = few.ok().or_else(kept);
    Ok(format!("{} are kept", kept.unwrap_or_default()))
}
