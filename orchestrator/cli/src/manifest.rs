//! Manifests: YAML or JSON files with any of the API's kinds.

use std::collections::BTreeSet;
use std::io::Read;

use anyhow::{Context, Result, bail};
use gantry_api::{NetworkFunction, NetworkFunctionSpec, NetworkService, NetworkServiceSpec, NfPackage};
use gantry_catalog::{Catalog, NfPackageSpec, Problem};
use serde_json::Value;

use crate::client::Client;

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

/// The object's kind.
pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// The object's name.
pub fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("a name is needed")
}

/// The namespace that it names, or else the command's.
pub fn namespace<'a>(object: &'a Value, default: &'a str) -> &'a str {
    object["metadata"]["namespace"].as_str().unwrap_or(default)
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

/// Package and version of each function that the manifests stand for.
pub fn used(manifests: &[Value]) -> BTreeSet<(&str, &str)> {
    let specs = manifests.iter().flat_map(|object| match kind(object) {
        NetworkFunction::KIND => vec![&object["spec"]],
        NetworkService::KIND => object["spec"]["functions"]
            .as_array()
            .into_iter()
            .flatten()
            .collect(),
        _ => Vec::new(),
    });
    specs
        .filter_map(|spec| Some((spec["package"].as_str()?, spec["version"].as_str()?)))
        .collect()
}

/// The catalog's packages that the manifests use, except those that they bring along.
pub fn packages<'a>(manifests: &[Value], catalog: &'a Catalog) -> Vec<&'a NfPackageSpec> {
    let brought = |package: &NfPackageSpec| {
        let mut specs = manifests.iter().filter(|o| kind(o) == NfPackage::KIND);
        specs.any(|o| o["spec"]["package"] == package.package && o["spec"]["version"] == package.version)
    };
    used(manifests)
        .into_iter()
        .filter_map(|(name, version)| catalog.package(name, Some(version)))
        .filter(|package| !brought(package))
        .collect()
}

/// The packages that the manifests bring along.
pub fn brought(manifests: &[Value]) -> Vec<NfPackageSpec> {
    let packages = manifests.iter().filter(|o| kind(o) == NfPackage::KIND);
    packages
        .filter_map(|o| serde_json::from_value(o["spec"].clone()).ok())
        .collect()
}

/// Fails if a function breaks a rule of its package.
pub fn check_rules(manifests: &[Value], packages: &[&NfPackageSpec]) -> Result<()> {
    let find = |name: &str, version: &str| {
        let mut packages = packages.iter().copied();
        packages.find(|p| p.package == name && p.version == version)
    };
    for object in manifests {
        let problems = match kind(object) {
            NetworkFunction::KIND => {
                let spec: NetworkFunctionSpec = serde_json::from_value(object["spec"].clone())?;
                let package = find(&spec.package, &spec.version);
                package.map(|p| spec.problems(p)).unwrap_or_default()
            }
            NetworkService::KIND => {
                let spec: NetworkServiceSpec = serde_json::from_value(object["spec"].clone())?;
                spec.problems(find)
            }
            _ => Vec::new(),
        };
        if let Some(problem) = problems.first() {
            bail!("{}: {problem}", name(object)?);
        }
    }
    Ok(())
}

/// The text of a file, or of standard input for `-`.
fn read_text(path: &str) -> Result<String> {
    if path != "-" {
        return std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    Ok(text)
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
    let namespace = namespace(object, &client.namespace);
    Ok(match resource["namespaced"].as_bool() {
        Some(true) => format!("{base}/namespaces/{namespace}/{plural}"),
        _ => format!("{base}/{plural}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn function(version: &str, replicas: u32) -> Value {
        let spec = json!({"package": "p", "version": version, "replicas": replicas});
        json!({"apiVersion": "gantry.dev/v1", "kind": "NetworkFunction", "metadata": {"name": "f"}, "spec": spec})
    }

    #[test]
    fn a_broken_rule_is_found_before_anything_is_sent() {
        let mut package = NfPackageSpec {
            package: "p".to_owned(),
            version: "1.0.0".to_owned(),
            ..NfPackageSpec::default()
        };
        package.scale.max = 2;
        let manifests = [function("1.0.0", 1), function("1.0.0", 3)];
        let error = check_rules(&manifests, &[&package]).unwrap_err().to_string();
        assert!(error.starts_with("f: spec.replicas"), "{error}");
        check_rules(&manifests[..1], &[&package]).unwrap();
    }

    #[test]
    fn a_package_of_the_file_comes_before_the_catalogs() {
        let mut catalog = Catalog::default();
        let spec = NfPackageSpec {
            package: "p".to_owned(),
            version: "1.0.0".to_owned(),
            ..NfPackageSpec::default()
        };
        let key = (spec.package.clone(), spec.version.clone());
        catalog.packages.insert(key, spec.clone());
        let mut manifests = vec![function("1.0.0", 1), function("1.0.0", 2)];
        assert_eq!(packages(&manifests, &catalog), [&spec]);
        manifests.push(json!({"kind": "NfPackage", "metadata": {"name": "p-1.0.0"}, "spec": spec}));
        assert!(packages(&manifests, &catalog).is_empty());
        assert_eq!(brought(&manifests), [spec]);
    }
}
