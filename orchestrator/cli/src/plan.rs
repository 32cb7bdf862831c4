//! `gantry plan` and `gantry explain`: the planner's answers; and the question before a change whether it fits.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gantry_catalog::NfPackageSpec;
use gantry_orchestrator::core::KINDS;
use serde_json::{Value, json};

use crate::args::{Output, PlanArgs};
use crate::client::Client;
use crate::{catalog, manifest, output};

/// How long an agent may take to connect after it or the control plane was started.
const RECONNECT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(250);

/// So many pods without a place are told about node by node.
const TOLD: usize = 3;

/// A change that cannot come about now, with the reasons.
#[derive(Debug)]
pub struct NoRoom(pub String);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoRoom {}

/// `gantry plan -f FILE`. Exit code 0 when every pod has a place.
pub async fn plan(client: &Client, args: &PlanArgs, output: Output) -> Result<u8> {
    let objects = manifest::read(&args.file)?;
    let catalog = catalog::load(args.catalog.as_deref())?;
    for object in objects.iter().filter(|object| !places_pods(object)) {
        // It says nothing about places, but a kind that does not exist is a mistake all the same.
        manifest::collection_path(client, object).await?;
    }
    let answer = ask(client, &objects, &manifest::packages(&objects, &catalog)).await?;
    output::print(output, &answer, || plan_text(&answer))?;
    Ok(if obstacles(&answer).is_empty() { 0 } else { 2 })
}

/// Fails with the reasons if the planner has no place for what these manifests stand for. Where a node is not ready, it gets a
/// moment: its agent may be about to connect again.
pub async fn ensure_fits(client: &Client, objects: &[Value], packages: &[&NfPackageSpec]) -> Result<()> {
    let started = Instant::now();
    let mut answer = ask(client, objects, packages).await?;
    while is_for_want_of_nodes(&answer) && started.elapsed() < RECONNECT {
        tokio::time::sleep(POLL).await;
        answer = ask(client, objects, packages).await?;
    }
    match obstacles(&answer) {
        none if none.is_empty() => Ok(()),
        reasons => Err(NoRoom(format!(
            "it cannot run now, and nothing was changed:\n{reasons}`--queue` writes it all the same, and it waits until it can"
        ))
        .into()),
    }
}

async fn ask(client: &Client, objects: &[Value], packages: &[&NfPackageSpec]) -> Result<Value> {
    let question = question(objects, packages, &client.namespace);
    let mut answer: Value = client.post("/gantry/v1/plan", &Value::Array(question)).await?;
    // The server tells of every function; those of others are no part of the answer.
    let ours: BTreeSet<String> = objects
        .iter()
        .flat_map(|object| {
            let namespace = manifest::namespace(object, &client.namespace);
            let names = manifest::function_names(object);
            names.into_iter().map(move |name| format!("{namespace}/{name}"))
        })
        .collect();
    if let Some(problems) = answer["problems"].as_array_mut() {
        problems.retain(|p| ours.contains(p["function"].as_str().unwrap_or_default()));
    }
    Ok(answer)
}

/// A pod without a place for which some node takes no pods at all.
fn is_for_want_of_nodes(answer: &Value) -> bool {
    list(&answer["unplaced"]).any(|pod| {
        let reason = pod["reason"].as_str().unwrap_or_default();
        reason.contains(gantry_plan::NOT_SCHEDULABLE)
    })
}

/// The manifests that have a part in placing pods, with the packages that they use.
fn question(objects: &[Value], packages: &[&NfPackageSpec], namespace: &str) -> Vec<Value> {
    let mut question: Vec<Value> = objects.iter().filter(|o| places_pods(o)).cloned().collect();
    for object in &mut question {
        object["metadata"]["namespace"] = json!(manifest::namespace(object, namespace));
    }
    question.extend(packages.iter().map(|package| {
        let name = format!("{}-{}", package.package, package.version);
        json!({"apiVersion": "gantry.dev/v1", "kind": "NfPackage", "metadata": {"name": name}, "spec": package})
    }));
    question
}

fn places_pods(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    KINDS
        .iter()
        .any(|(kind, of, _)| object["kind"] == *kind && *of == group)
}

fn plan_text(answer: &Value) -> String {
    let rows = list(&answer["placements"])
        .map(|p| ["pod", "container", "node", "cpus", "sharedCpus", "numaNodes"].map(|f| text_of(&p[f])));
    let mut text = output::table(["POD", "CONTAINER", "NODE", "CPUS", "SHARED CPUS", "NUMA"], rows);
    for (field, what) in [("changes", "gets other CPUs or memory"), ("drains", "drains")] {
        for pod in list(&answer[field]) {
            text += &format!("{} {what}\n", text_of(pod));
        }
    }
    text + &obstacles(answer)
}

/// What stands in the way, down to the NUMA node; empty if nothing does.
fn obstacles(answer: &Value) -> String {
    let mut text = String::new();
    for problem in list(&answer["problems"]) {
        text += &format!(
            "{}: {}\n",
            text_of(&problem["function"]),
            text_of(&problem["reason"])
        );
    }
    let mut unplaced: Vec<&Value> = list(&answer["unplaced"]).collect();
    // Of a group that is placed all or none, the pod that is in the way has the verdicts.
    unplaced.sort_by_key(|pod| pod["nodes"].as_object().is_none_or(serde_json::Map::is_empty));
    for (index, pod) in unplaced.into_iter().enumerate() {
        text += &format!(
            "no place for {}: {}\n",
            text_of(&pod["pod"]),
            text_of(&pod["reason"])
        );
        if index < TOLD {
            text += &verdicts(pod);
        }
    }
    text
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Where a pod is, or why it has no place or is held at its old size; `None` if there is no such pod.
pub async fn find_explanation(client: &Client, pod: &str) -> Result<Option<Value>> {
    client
        .find(&format!("/gantry/v1/explain/{}/{pod}", client.namespace))
        .await
}

/// `gantry explain POD`.
pub async fn explain(client: &Client, pod: &str, output: Output) -> Result<()> {
    let Some(answer) = find_explanation(client, pod).await? else {
        bail!(
            "no pod `{pod}` in namespace {}; see `gantry status`",
            client.namespace
        )
    };
    let yaml = serde_saphyr::to_string(&answer).context("cannot write YAML")?;
    output::print(output, &answer, || explain_text(&answer).unwrap_or(yaml))
}

/// The reason in words, then node by node.
pub fn explain_text(answer: &Value) -> Option<String> {
    Some(format!("{}\n{}", answer["reason"].as_str()?, verdicts(answer)))
}

fn verdicts(answer: &Value) -> String {
    let mut text = String::new();
    for (node, verdict) in answer["nodes"].as_object().into_iter().flatten() {
        text += &format!("  {node}: {}\n", text_of(&verdict["reason"]));
        for (numa, reason) in verdict["numaNodes"].as_object().into_iter().flatten() {
            text += &format!("    NUMA node {numa}: {}\n", text_of(reason));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_all_that_the_server_does() {
        let verdict = json!({"reason": "no 64 free CPUs", "numaNodes": {"0": "3 of 64 CPUs are free"}});
        let answer = json!({
            "placements": [{"pod": "a-1", "container": "c", "node": "n", "cpus": "2-3", "numaNodes": [0]}],
            "changes": ["a-2"],
            "drains": ["a-3"],
            "problems": [{"function": "default/b", "reason": "package b 9.9.9 is not in the catalog"}],
            "unplaced": [
                {"pod": "c-2", "reason": "group core is placed all or none", "nodes": {}},
                {"pod": "c-1", "reason": "0/1 nodes fit", "nodes": {"n": verdict}},
            ],
        });
        let text = plan_text(&answer);
        for part in [
            "2-3",
            "a-2 gets other CPUs or memory",
            "a-3 drains",
            "default/b: package b 9.9.9 is not in the catalog",
            "no place for c-1: 0/1 nodes fit\n  n: no 64 free CPUs\n    NUMA node 0: 3 of 64",
        ] {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
        assert!(text.find("c-1").unwrap() < text.find("c-2").unwrap());
        assert_eq!(obstacles(&json!({"placements": [], "unplaced": []})), "");
    }

    #[test]
    fn only_kinds_that_place_pods_are_asked_about() {
        let object = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
        let objects = [
            object("rbac.authorization.k8s.io/v1", "Role"),
            object("apps/v1", "Deployment"),
            object("gantry.dev/v1", "NetworkFunction"),
            object("example.com/v1", "Deployment"),
        ];
        let question = question(&objects, &[&NfPackageSpec::default()], "lab");
        let kinds: Vec<&str> = question.iter().filter_map(|o| o["kind"].as_str()).collect();
        assert_eq!(kinds, ["Deployment", "NetworkFunction", "NfPackage"]);
        assert_eq!(question[0]["metadata"]["namespace"], "lab");
    }
}
