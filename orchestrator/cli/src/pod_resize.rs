//! `gantry resize POD`: Kubernetes' in-place resize of one pod.

use anyhow::{Result, bail};
use gantry_api::{PodExtras, labels};
use gantry_catalog::{MilliCpu, Quantity};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::args::{Output, ResizeArgs};
use crate::client::Client;
use crate::output::{self, Progress};
use crate::plan::{self, NoRoom};
use crate::waiting::Patience;

/// Memory limits in the kernel are whole pages.
const PAGE_BYTES: u64 = 4096;

/// Writes the new size and waits until the node reports it.
pub async fn resize(client: &Client, args: &ResizeArgs, output: Output) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", client.namespace, args.name);
    let Some(pod) = client.find::<Pod>(&path).await? else {
        bail!(
            "no network function and no pod `{}` in namespace {}; see `gantry status`",
            args.name,
            client.namespace
        );
    };
    let container = pick_container(&pod, args)?;
    client
        .merge_strategic(&format!("{path}/resize"), &patch(&container, args))
        .await?;
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
                Some(pod) if in_force(&pod, &container) => break,
                Some(_) if !args.room.queue => ensure_not_held_back(name, &explanation)?,
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
            Err(NoRoom(format!("pod {name} waits for room: {text}\n`gantry resize` to a size that fits, or wait with `--queue`")).into())
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

/// The node reports what the container's spec requests.
fn in_force(pod: &Pod, container: &str) -> bool {
    let spec = pod
        .spec
        .iter()
        .flat_map(|s| &s.containers)
        .find(|c| c.name == container);
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let status = statuses.into_iter().flatten().find(|s| s.name == container);
    let wanted = spec.and_then(|c| c.resources.as_ref()?.requests.as_ref());
    let has = status.and_then(|s| s.allocated_resources.as_ref());
    let (Some(wanted), Some(has)) = (wanted, has) else {
        return false;
    };
    let milli = |text: &str| text.parse::<MilliCpu>().ok();
    let pages = |text: &str| text.parse::<Quantity>().ok().map(|q| q.0 / PAGE_BYTES);
    wanted.iter().all(
        |(resource, amount)| match (resource.as_str(), has.get(resource)) {
            ("cpu", Some(has)) => milli(&has.0) == milli(&amount.0),
            ("memory", Some(has)) => pages(&has.0) == pages(&amount.0),
            ("cpu" | "memory", None) => false,
            _ => true,
        },
    )
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
    fn resized_is_what_the_node_reports() {
        let pod = |cpu: &str, memory: &str| -> Pod {
            let container =
                json!({"name": "c", "resources": {"requests": {"cpu": "0.4", "memory": "100000"}}});
            let status = json!({
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": cpu, "memory": memory},
            });
            let value =
                json!({"spec": {"containers": [container]}, "status": {"containerStatuses": [status]}});
            serde_json::from_value(value).unwrap()
        };
        assert!(in_force(&pod("400m", "98304"), "c"));
        assert!(!in_force(&pod("200m", "98304"), "c"));
        assert!(!in_force(&pod("400m", "65536"), "c"));
        assert!(!in_force(&Pod::default(), "c"));
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
