//! Network functions with their packages and pods, by service and plane.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use gantry_api::{NetworkFunction, NfPackage, labels};
use gantry_catalog::Metrics;
use k8s_openapi::api::core::v1::Pod;

use crate::client::Client;

/// One, with all that is known of it.
pub struct Function {
    /// Empty if it was deployed by itself.
    pub service: String,
    pub name: String,
    pub object: NetworkFunction,
    pub package: Option<NfPackage>,
    /// By name.
    pub pods: Vec<Pod>,
}

impl Function {
    pub fn plane(&self) -> &'static str {
        self.package.as_ref().map_or("-", |p| p.spec.plane.name())
    }

    pub fn role(&self) -> &str {
        self.package.as_ref().map_or("-", |p| &p.spec.role)
    }

    pub fn metrics(&self) -> Option<&Metrics> {
        self.package.as_ref()?.spec.metrics.as_ref()
    }

    pub fn ready(&self) -> String {
        format!(
            "{}/{}",
            self.object.status.ready_replicas, self.object.spec.replicas
        )
    }
}

/// Those that are named, or that belong to a service that is named; all of the namespace if none is.
pub async fn load(client: &Client, names: &[String]) -> Result<Vec<Function>> {
    let objects: Vec<NetworkFunction> = client.list(&client.own(NetworkFunction::PLURAL)).await?;
    let packages: Vec<NfPackage> = client.list(&Client::own_cluster(NfPackage::PLURAL)).await?;
    let pods = format!("/api/v1/namespaces/{}/pods", client.namespace);
    let functions = assemble(objects, &packages, client.list(&pods).await?);
    let chosen = |f: &Function| names.is_empty() || names.contains(&f.name) || names.contains(&f.service);
    for name in names {
        ensure!(
            functions.iter().any(|f| f.name == *name || f.service == *name),
            "no network service or function `{name}` in namespace {}; see `gantry get`",
            client.namespace
        );
    }
    Ok(functions.into_iter().filter(chosen).collect())
}

fn assemble(objects: Vec<NetworkFunction>, packages: &[NfPackage], pods: Vec<Pod>) -> Vec<Function> {
    let mut of_function: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in pods {
        if let Some(function) = pod.metadata.labels.as_ref().and_then(|all| all.get(labels::NF)) {
            of_function.entry(function.clone()).or_default().push(pod);
        }
    }
    let mut functions: Vec<Function> = objects
        .into_iter()
        .map(|object| {
            let name = object.metadata.name.clone().unwrap_or_default();
            let labelled = object.metadata.labels.as_ref();
            let spec = &object.spec;
            let its = |p: &&NfPackage| p.spec.package == spec.package && p.spec.version == spec.version;
            Function {
                service: labelled
                    .and_then(|all| all.get(labels::SERVICE))
                    .cloned()
                    .unwrap_or_default(),
                package: packages.iter().find(its).cloned(),
                pods: of_function.remove(&name).unwrap_or_default(),
                name,
                object,
            }
        })
        .collect();
    let plane = |f: &Function| f.package.as_ref().map(|p| p.spec.plane);
    functions.sort_by(|a, b| (&a.service, plane(a), &a.name).cmp(&(&b.service, plane(b), &b.name)));
    functions
}

/// The first two cells of each row: what is as in the row before stays empty, so that groups are seen.
pub fn grouped(functions: &[Function]) -> impl Iterator<Item = ([String; 2], &Function)> {
    let before = std::iter::once(None).chain(functions.iter().map(Some));
    functions.iter().zip(before).map(|(function, before)| {
        let same_service = before.is_some_and(|b| b.service == function.service);
        let same_plane = same_service && before.is_some_and(|b| b.plane() == function.plane());
        let service = match (same_service, function.service.as_str()) {
            (true, _) => "",
            (false, "") => "-",
            (false, named) => named,
        };
        let plane = if same_plane { "" } else { function.plane() };
        ([service.to_owned(), plane.to_owned()], function)
    })
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    /// Two functions of a service in two planes, and one by itself.
    pub fn some() -> Vec<Function> {
        let object = |name: &str, package: &str, service: &str| -> NetworkFunction {
            read(json!({
                "metadata": {"name": name, "labels": {"gantry.dev/network-service": service}},
                "spec": {"package": package, "version": "1.0.0", "replicas": 1},
                "status": {"readyReplicas": 1},
            }))
        };
        let package = |name: &str, plane: &str, role: &str| -> NfPackage {
            read(json!({
                "metadata": {"name": format!("{name}-1.0.0")},
                "spec": {"package": name, "version": "1.0.0", "family": "epc", "role": role, "plane": plane, "containers": []},
            }))
        };
        let pod = |name: &str, function: &str| -> Pod {
            read(
                json!({"metadata": {"name": name, "uid": name, "labels": {"gantry.dev/network-function": function}},
                "spec": {"containers": [], "nodeName": "n"}}),
            )
        };
        let mut alone = object("alone", "hss", "");
        alone.metadata.labels = None;
        assemble(
            vec![
                alone,
                object("sgw", "sgw", "core"),
                object("mme", "mme", "core"),
                object("hss", "hss", "core"),
            ],
            &[
                package("sgw", "data", "SGW"),
                package("mme", "signalling", "MME"),
                package("hss", "signalling", "HSS"),
            ],
            vec![pod("sgw-0", "sgw"), pod("sgw-1", "sgw"), pod("mme-0", "mme")],
        )
    }

    #[test]
    fn functions_are_in_the_order_of_services_and_planes() {
        let functions = some();
        let rows: Vec<[String; 3]> = grouped(&functions)
            .map(|([service, plane], f)| [service, plane, f.name.clone()])
            .collect();
        assert_eq!(
            rows,
            [
                ["-", "signalling", "alone"],
                ["core", "signalling", "hss"],
                ["", "", "mme"],
                ["", "data", "sgw"]
            ]
        );
        assert_eq!(functions[3].pods.len(), 2);
    }
}
