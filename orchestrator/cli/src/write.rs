//! Writing manifests and packages through the API: everything that can be refused is asked before the first write.

use anyhow::{Result, bail};
use gantry_api::{NetworkFunction, NfPackage, ObjectMeta};
use gantry_catalog::NfPackageSpec;
use serde_json::{Value, json};

use crate::client::{Client, is_status};
use crate::manifest;

/// Tries at a write that others' writes get in the way of; each reads the object anew.
pub const TRIES: u32 = 10;

/// An object that may be written.
pub struct Write<'a> {
    collection: String,
    object: &'a Value,
}

impl<'a> Write<'a> {
    /// Finds out where it belongs; refuses to take a function away from the service that it is part of.
    pub async fn prepare(client: &Client, object: &'a Value) -> Result<Self> {
        let write = Self {
            collection: manifest::collection_path(client, object).await?,
            object,
        };
        if manifest::kind(object) == NetworkFunction::KIND
            && let Some(existing) = client.find::<Value>(&write.path()?).await?
        {
            ensure_own(&existing, manifest::name(object)?)?;
        }
        Ok(write)
    }

    fn path(&self) -> Result<String> {
        Ok(format!("{}/{}", self.collection, manifest::name(self.object)?))
    }

    /// Creates the object, or replaces the spec of the one that is there. Returns it as it is now.
    pub async fn send(&self, client: &Client) -> Result<Value> {
        let path = self.path()?;
        for attempt in 1.. {
            let existing = client.find::<Value>(&path).await?;
            let object = merged(existing.as_ref(), self.object);
            let answer = match existing {
                Some(_) => client.replace(&path, &object).await,
                None => client.create(&self.collection, &object).await,
            };
            match answer {
                Err(error) if is_status(&error, 409) && attempt < TRIES => {}
                answer => return answer,
            }
        }
        unreachable!("the loop ends by returning")
    }
}

/// Fails if a function is part of a service.
pub fn ensure_own(function: &Value, name: &str) -> Result<()> {
    match controller(function) {
        Some(owner) => bail!(
            "{name} is part of {0}: change or remove it there, or change {name} with `gantry scale`, `resize` or `upgrade`",
            owner["name"].as_str().unwrap_or_default()
        ),
        None => Ok(()),
    }
}

/// The object that an object is part of.
pub fn controller(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// The object as it is to be written: who owns it and what holds it stay as they are.
fn merged(existing: Option<&Value>, object: &Value) -> Value {
    let mut merged = object.clone();
    if let Some(fields) = merged.as_object_mut() {
        fields.remove("status");
    }
    let Some(existing) = existing else { return merged };
    let mut metadata = existing["metadata"].clone();
    for field in ["labels", "annotations"] {
        for (key, value) in object["metadata"][field].as_object().into_iter().flatten() {
            metadata[field][key] = value.clone();
        }
    }
    merged["metadata"] = metadata;
    merged
}

/// Those of the packages that the API does not have yet; a version, once there, never changes.
pub async fn missing_packages<'a>(
    client: &Client,
    packages: &[&'a NfPackageSpec],
) -> Result<Vec<&'a NfPackageSpec>> {
    let mut missing = Vec::new();
    for package in packages {
        match find_package(client, &package.package, &package.version).await? {
            None => missing.push(*package),
            Some(existing) if existing == **package => {}
            Some(_) => bail!(
                "package {} {} is deployed with other content; give the changed package a new version",
                package.package,
                package.version
            ),
        }
    }
    Ok(missing)
}

/// Puts a package into the API.
pub async fn create_package(client: &Client, package: &NfPackageSpec) -> Result<()> {
    let metadata = ObjectMeta {
        name: Some(format!("{}-{}", package.package, package.version)),
        ..ObjectMeta::default()
    };
    let object = json!(NfPackage::new(metadata, package.clone()));
    client
        .create(&Client::own_cluster(NfPackage::PLURAL), &object)
        .await
        .map(drop)
}

/// A package that the API has.
pub async fn find_package(client: &Client, name: &str, version: &str) -> Result<Option<NfPackageSpec>> {
    let path = format!("{}/{name}-{version}", Client::own_cluster(NfPackage::PLURAL));
    Ok(client.find::<NfPackage>(&path).await?.map(|package| package.spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_keeps_owners_and_finalizers() {
        let owner = json!({"kind": "NetworkService", "name": "sip-core", "controller": true});
        let existing = json!({
            "metadata": {
                "name": "f", "resourceVersion": "7", "ownerReferences": [owner], "finalizers": ["gantry.dev/drain"],
                "labels": {"a": "1", "b": "1"},
            },
            "spec": {"replicas": 1},
            "status": {"replicas": 1},
        });
        let object = json!({
            "metadata": {"name": "f", "labels": {"b": "2"}, "annotations": {"c": "3"}}, "spec": {"replicas": 2}, "status": {},
        });
        let written = merged(Some(&existing), &object);
        assert_eq!(
            written,
            json!({
                "metadata": {
                    "name": "f", "resourceVersion": "7", "ownerReferences": [owner], "finalizers": ["gantry.dev/drain"],
                    "labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"},
                },
                "spec": {"replicas": 2},
            })
        );
        let error = ensure_own(&existing, "f").unwrap_err().to_string();
        assert!(error.contains("part of sip-core"), "{error}");
        ensure_own(&object, "f").unwrap();
    }
}
