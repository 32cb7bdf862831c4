//! `gantry resize POD`: Kubernetes' in-place resize of one pod.

use anyhow::{Result, bail};
use gantry_api::{PodExtras, labels};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use serde_json::{Value, json};

use crate::args::{Output, ResizeArgs};
use crate::client::Client;
use crate::output::{self, Progress};
use crate::plan::{self, NoRoom};
use crate::waiting::Patience;

/// Writes the new size and waits until it is in force.
pub async fn resize(client: &Client, args: &ResizeArgs, output: Output) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", client.namespace, args.name);
    let Some(pod_before) = client.find::<Pod>(&path).await? else {
        bail!(
            "no network function and no pod `{}` in namespace {}; see `gantry status`",
            args.name,
            client.namespace
        );
    };
    let container = pick_container(&pod_before, args)?;
    let change = patch(&container, args);
    client.merge_strategic(&format!("{path}/resize"), &change).await?;
    let name = &args.name;
    let told = |state: &str| {
        let value = json!({"pod": name, "container": container, "state": state});
        output::print(output, &value, || format!("pod {name} {state}\n"))
    };
    if args.wait.no_wait {
        return told("resizing");
    }
    let mut patience = Patience::new(&args.wait);
    let progress = Progress::new(&format!("{name}: resizing"));
    loop {
        if let Some((pod, explanation)) = patience.answer(look(client, &path, name).await)? {
            match pod {
                None => bail!("pod {name} was removed meanwhile"),
                Some(pod) if in_force(&pod) => break,
                Some(_) if !args.room.queue => {
                    if let Err(error) = ensure_not_held_back(name, &explanation) {
                        // What does not fit is not asked for any more.
                        let before = undo(&pod_before, &container, &change);
                        client.merge_strategic(&format!("{path}/resize"), &before).await?;
                        return Err(error);
                    }
                }
                Some(_) => {}
            }
        }
        patience
            .pause(|| format!("pod {name} does not have its new size"))
            .await?;
    }
    drop(progress);
    told("resized")
}

async fn look(client: &Client, path: &str, name: &str) -> Result<(Option<Pod>, Value)> {
    let explanation = plan::find_explanation(client, name).await?;
    Ok((client.find(path).await?, explanation.unwrap_or_default()))
}

/// The planner tells node by node what is in the way of a pod that it holds at its old size.
fn ensure_not_held_back(name: &str, explanation: &Value) -> Result<()> {
    match plan::explain_text(explanation) {
        Some(text) if explanation["nodes"].is_object() => {
            let text = text.trim_end();
            Err(NoRoom(format!("pod {name} keeps its size: {text}\n`gantry resize` to a size that fits, or wait with `--queue`")).into())
        }
        _ => Ok(()),
    }
}

fn pick_container(pod: &Pod, args: &ResizeArgs) -> Result<String> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let names: Vec<&str> = containers.map(|c| c.name.as_str()).collect();
    let name = match (args.container.as_deref(), names.as_slice()) {
        (Some(name), all) if all.contains(&name) => name,
        (None, [only]) => only,
        _ => bail!(
            "name one of the pod's containers with --container: {}",
            names.join(", ")
        ),
    };
    let annotations = pod.metadata.annotations.as_ref();
    let extras = annotations.and_then(|all| serde_json::from_str::<PodExtras>(all.get(labels::EXTRAS)?).ok());
    if args.cpu.is_some() && extras.is_some_and(|extras| extras.exclusive.contains_key(name)) {
        bail!(
            "container {name} of pod {} has exclusive CPUs, which only its network function changes: `gantry resize FUNCTION --cpu N`",
            args.name
        );
    }
    Ok(name.to_owned())
}

/// The patch that takes a patch back: what the pod had, or nothing, in each field that it sets.
fn undo(before: &Pod, container: &str, change: &Value) -> Value {
    let had = resources_of(before, container).unwrap_or_default();
    let had = json!({"requests": had.requests, "limits": had.limits});
    let mut undo = change.clone();
    for list in ["requests", "limits"] {
        let fields = undo["spec"]["containers"][0]["resources"][list].as_object_mut();
        for (resource, amount) in fields.into_iter().flatten() {
            *amount = had[list][resource].clone();
        }
    }
    undo
}

fn resources_of(pod: &Pod, container: &str) -> Option<ResourceRequirements> {
    let mut containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers.find(|c| c.name == container)?.resources.clone()
}

/// The newest spec has been looked at, and nothing holds its sizes up.
fn in_force(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let conditions = status.conditions.iter().flatten();
    let mut held_up =
        conditions.filter(|c| ["PodResizePending", "PodResizeInProgress"].contains(&c.type_.as_str()));
    status.observed_generation >= pod.metadata.generation && held_up.next().is_none()
}

/// The Kubernetes patch that resizes a single pod's container.
fn patch(container: &str, args: &ResizeArgs) -> Value {
    let mut resources = json!({"requests": {}, "limits": {}});
    if let Some(memory) = args.memory {
        resources["requests"]["memory"] = json!(memory);
        resources["limits"]["memory"] = json!(memory);
    }
    if let Some(cpu) = &args.cpu {
        resources["requests"]["cpu"] = json!(cpu);
    }
    if let Some(limit) = args.cpu_limit {
        resources["limits"]["cpu"] = json!(limit);
    }
    json!({"spec": {"containers": [{"name": container, "resources": resources}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resized_is_what_nothing_holds_up() {
        let pod = |observed: i64, condition: &str| -> Pod {
            let condition = json!({"type": condition, "status": "True"});
            let status = json!({"observedGeneration": observed, "conditions": [condition]});
            serde_json::from_value(json!({"metadata": {"generation": 2}, "status": status})).unwrap()
        };
        assert!(in_force(&pod(2, "Ready")));
        assert!(!in_force(&pod(1, "Ready")), "nobody has looked at it yet");
        assert!(!in_force(&pod(2, "PodResizePending")));
        assert!(!in_force(&pod(2, "PodResizeInProgress")));
        assert!(!in_force(&Pod::default()));
    }

    #[test]
    fn a_change_is_taken_back_field_by_field() {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}});
        let pod = serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap();
        let resources = json!({"requests": {"cpu": "2"}, "limits": {"memory": "2Gi"}});
        let change = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let resources = json!({"requests": {"cpu": "1"}, "limits": {"memory": null}});
        let expected = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        assert_eq!(undo(&pod, "c", &change), expected);
    }

    #[test]
    fn a_pod_that_is_held_back_is_an_error_with_the_reason() {
        let verdict = json!({"reason": "full", "numaNodes": {"0": "1Mi of 2Mi is free"}});
        let held = json!({"reason": "keeps its old size: n: full", "nodes": {"n": verdict}});
        let error = ensure_not_held_back("p", &held).unwrap_err();
        assert!(error.is::<NoRoom>() && error.to_string().contains("NUMA node 0: 1Mi"));
        ensure_not_held_back("p", &json!({"reason": "it is on node n"})).unwrap();
        ensure_not_held_back("p", &Value::Null).unwrap();
    }
}
