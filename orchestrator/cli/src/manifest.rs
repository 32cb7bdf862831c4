//! Manifests: YAML or JSON files with any of the API's kinds.

use anyhow::{Context, Result, bail};
use gantry_api::{NetworkFunction, NetworkFunctionSpec, NetworkService, NetworkServiceSpec};
use gantry_catalog::{Catalog, NfPackageSpec, Problem};
use serde_json::Value;

use crate::client::Client;
use crate::deploy::read_text;

/// Reads every document of a file; own kinds are checked with positions before anything is sent.
pub fn read(path: &str) -> Result<Vec<Value>> {
    let text = read_text(path)?;
    let mut manifests = Vec::new();
    let mut first_line = 0;
    for document in text.split("\n---") {
        let offset = first_line;
        first_line += document.matches('\n').count() + 1;
        if document
            .lines()
            .all(|line| line.trim().is_empty() || line.starts_with('#') || line.starts_with("---"))
        {
            continue;
        }
        let padded = "\n".repeat(offset) + document.trim_start_matches("---");
        let object: Value = gantry_catalog::parse(path, &padded)?;
        check(path, &padded, &object)?;
        manifests.push(object);
    }
    if manifests.is_empty() {
        bail!("{path} has no manifest");
    }
    Ok(manifests)
}

#[derive(serde::Deserialize)]
struct Typed<T> {
    #[allow(dead_code, reason = "only the shape is checked")]
    spec: T,
}

fn check(path: &str, text: &str, object: &Value) -> Result<()> {
    name(object).map_err(|error| {
        let problem = Problem {
            path: "metadata".to_owned(),
            message: error.to_string(),
        };
        gantry_catalog::locate(path, text, vec![problem]).remove(0)
    })?;
    match kind(object) {
        NetworkFunction::KIND => drop(gantry_catalog::parse::<Typed<NetworkFunctionSpec>>(path, text)?),
        NetworkService::KIND => drop(gantry_catalog::parse::<Typed<NetworkServiceSpec>>(path, text)?),
        _ => {}
    }
    Ok(())
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// The object's name.
pub fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("a name is needed")
}

/// The network functions that an object stands for.
pub fn function_names(object: &Value) -> Vec<String> {
    match kind(object) {
        NetworkFunction::KIND => object["metadata"]["name"]
            .as_str()
            .map(str::to_owned)
            .into_iter()
            .collect(),
        NetworkService::KIND => {
            let functions = object["spec"]["functions"].as_array().into_iter().flatten();
            functions
                .filter_map(|f| f["name"].as_str().map(str::to_owned))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The catalog's packages that the manifests use.
pub fn packages<'a>(manifests: &[Value], catalog: &'a Catalog) -> Vec<&'a NfPackageSpec> {
    let specs = manifests.iter().flat_map(|object| match kind(object) {
        NetworkFunction::KIND => vec![object["spec"].clone()],
        NetworkService::KIND => object["spec"]["functions"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
        _ => Vec::new(),
    });
    specs
        .filter_map(|spec| catalog.package(spec["package"].as_str()?, Some(spec["version"].as_str()?)))
        .collect()
}

/// Where objects of this kind are created, asked of the API server's discovery.
pub async fn collection_path(client: &Client, object: &Value) -> Result<String> {
    let version = object["apiVersion"]
        .as_str()
        .context("a manifest needs an apiVersion")?;
    let base = if version.contains('/') {
        format!("/apis/{version}")
    } else {
        format!("/api/{version}")
    };
    let resources: Option<Value> = client.find(&base).await?;
    let resource = resources.as_ref().and_then(|list| {
        list["resources"]
            .as_array()?
            .iter()
            .find(|r| r["kind"] == object["kind"] && !r["name"].as_str().unwrap_or("/").contains('/'))
    });
    let Some(resource) = resource else {
        bail!(
            "{}: the API server has no kind {} in {version}",
            name(object)?,
            kind(object)
        );
    };
    let plural = resource["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(&client.namespace);
    Ok(match resource["namespaced"].as_bool() {
        Some(true) => format!("{base}/namespaces/{namespace}/{plural}"),
        _ => format!("{base}/{plural}"),
    })
}
