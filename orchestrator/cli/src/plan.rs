//! `gantry plan` and `gantry explain`: the planner's answers.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::args::{Output, PlanArgs};
use crate::client::Client;
use crate::{catalog, manifest, output};

/// `gantry plan -f FILE`. Exit code 0 when every pod has a place.
pub async fn plan(client: &Client, args: &PlanArgs, output: Output) -> Result<u8> {
    let mut objects = manifest::read(&args.file)?;
    let catalog = catalog::load(args.catalog.as_deref())?;
    for package in manifest::packages(&objects.clone(), &catalog) {
        let name = format!("{}-{}", package.package, package.version);
        objects.push(json!({"apiVersion": "gantry.dev/v1", "kind": "NfPackage", "metadata": {"name": name}, "spec": package}));
    }
    for object in &mut objects {
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!(client.namespace);
        }
    }
    let answer: Value = client.post("/gantry/v1/plan", &Value::Array(objects)).await?;
    output::print(output, &answer, || plan_text(&answer))?;
    Ok(u8::from(answer["unplaced"].as_array().is_some_and(|u| !u.is_empty())) * 2)
}

fn plan_text(answer: &Value) -> String {
    let rows = answer["placements"].as_array().into_iter().flatten().map(|p| {
        ["pod", "container", "node", "cpus", "sharedCpus", "numaNodes"].map(|field| text_of(&p[field]))
    });
    let mut text = output::table(["POD", "CONTAINER", "NODE", "CPUS", "SHARED CPUS", "NUMA"], rows);
    for unplaced in answer["unplaced"].as_array().into_iter().flatten() {
        text += &format!(
            "no place for {}: {}\n",
            text_of(&unplaced["pod"]),
            text_of(&unplaced["reason"])
        );
    }
    text
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

/// `gantry explain POD`.
pub async fn explain(client: &Client, pod: &str, output: Output) -> Result<()> {
    let path = format!("/gantry/v1/explain/{}/{pod}", client.namespace);
    let answer: Option<Value> = client.find(&path).await?;
    let Some(answer) = answer else {
        bail!(
            "no pod `{pod}` in namespace {}; see `gantry status`",
            client.namespace
        )
    };
    let yaml = serde_saphyr::to_string(&answer).context("cannot write YAML")?;
    output::print(output, &answer, || explain_text(&answer).unwrap_or(yaml))
}

fn explain_text(answer: &Value) -> Option<String> {
    let mut text = format!("{}\n", answer["reason"].as_str()?);
    for (node, verdict) in answer["nodes"].as_object().into_iter().flatten() {
        text += &format!("  {node}: {}\n", text_of(&verdict["reason"]));
        for (numa, reason) in verdict["numaNodes"].as_object().into_iter().flatten() {
            text += &format!("    NUMA node {numa}: {}\n", text_of(reason));
        }
    }
    Some(text)
}
