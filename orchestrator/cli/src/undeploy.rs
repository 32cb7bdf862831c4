//! `gantry undeploy`: services and functions go, with a receipt of what their sessions came to.

use anyhow::{Result, bail};
use gantry_api::{NetworkFunction, NetworkService, Operation, OperationKind, OperationPhase, labels};
use serde_json::{Value, json};

use crate::args::{Output, UndeployArgs};
use crate::client::Client;
use crate::operation::{belongs_to, receipt_text};
use crate::output::{self, Progress};
use crate::waiting::Patience;
use crate::write::{controller, ensure_own};

/// What is to go.
struct Target {
    name: String,
    path: String,
    /// The label that all that is part of it has.
    label: &'static str,
    /// Its functions: itself, or those of the service.
    functions: Vec<Value>,
}

/// `gantry undeploy`.
pub async fn undeploy(client: &Client, args: &UndeployArgs, output: Output) -> Result<()> {
    let mut targets = Vec::new();
    for name in &args.names {
        targets.push(Target::find(client, name).await?);
    }
    for target in &targets {
        target.remove(client, args.drain).await?;
    }
    let names = || targets.iter().map(|t| t.name.as_str()).collect::<Vec<_>>();
    if args.wait.no_wait {
        return output::print(output, &json!({"leaving": names()}), || {
            format!("{} leaving; see `gantry status`\n", names().join(", "))
        });
    }
    let mut patience = Patience::new(&args.wait);
    let mut receipts = Vec::new();
    for target in &targets {
        receipts.extend(target.wait(client, &mut patience).await?);
    }
    let value = json!({"undeployed": names(), "operations": receipts});
    output::print(output, &value, || {
        let receipts: String = receipts.iter().map(receipt_text).collect();
        format!("{receipts}{} undeployed\n", names().join(", "))
    })
}

impl Target {
    async fn find(client: &Client, name: &str) -> Result<Self> {
        let service = format!("{}/{name}", client.own(NetworkService::PLURAL));
        let functions = client.own(NetworkFunction::PLURAL);
        if let Some(found) = client.find::<Value>(&service).await? {
            let all: Vec<Value> = client.list(&functions).await?;
            return Ok(Self {
                name: name.to_owned(),
                path: service,
                label: labels::SERVICE,
                functions: members(&found, all),
            });
        }
        let path = format!("{functions}/{name}");
        let Some(function) = client.find::<Value>(&path).await? else {
            bail!(
                "no network service or function `{name}` in namespace {}; see `gantry status`",
                client.namespace
            );
        };
        ensure_own(&function, name)?;
        Ok(Self {
            name: name.to_owned(),
            path,
            label: labels::NF,
            functions: vec![function],
        })
    }

    async fn remove(&self, client: &Client, drain: bool) -> Result<()> {
        for function in self.functions.iter().filter(|_| drain) {
            let name = function["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{}/{name}", client.own(NetworkFunction::PLURAL));
            let patch = json!({"metadata": {"annotations": {"gantry.dev/undeploy": "drain"}}});
            client.merge(&path, &patch).await?;
        }
        client.delete(&self.path).await.map(drop)
    }

    /// Waits until nothing is left of it; the receipts of its functions.
    async fn wait(&self, client: &Client, patience: &mut Patience) -> Result<Vec<Operation>> {
        let name = &self.name;
        let mut progress = Progress::new(&format!("{name}: stopping"));
        loop {
            if let Some((left, operations)) = patience.answer(self.look(client).await)? {
                let running = operations
                    .iter()
                    .find(|o| o.status.phase == OperationPhase::Running);
                match running {
                    None if left == 0 => return Ok(operations),
                    None => progress.set(&format!("{name}: {left} objects left")),
                    Some(operation) => progress.set(&format!("{name}: {}", operation.status.message)),
                }
            }
            patience.pause(|| format!("{name} is still stopping")).await?;
        }
    }

    /// How many objects are left, and the operations that take them down.
    async fn look(&self, client: &Client) -> Result<(usize, Vec<Operation>)> {
        let mut left = usize::from(client.find::<Value>(&self.path).await?.is_some());
        let pods = format!("/api/v1/namespaces/{}/pods", client.namespace);
        for collection in [client.own(NetworkFunction::PLURAL), pods] {
            let query = format!("{collection}?labelSelector={}%3D{}", self.label, self.name);
            left += client.list::<Value>(&query).await?.len();
        }
        let operations: Vec<Operation> = client.list(&client.own(Operation::PLURAL)).await?;
        Ok((left, self.farewells(operations)))
    }

    fn farewells(&self, mut operations: Vec<Operation>) -> Vec<Operation> {
        let ours = |o: &Operation| {
            let mut uids = self
                .functions
                .iter()
                .filter_map(|f| f["metadata"]["uid"].as_str());
            uids.any(|uid| belongs_to(o, uid))
        };
        operations.retain(|o| o.spec.kinds == [OperationKind::Undeploy] && ours(o));
        operations
    }
}

/// Those of the functions that are part of a service.
fn members(service: &Value, mut functions: Vec<Value>) -> Vec<Value> {
    functions.retain(|f| controller(f).is_some_and(|owner| owner["uid"] == service["metadata"]["uid"]));
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_those_of_the_functions_that_left() {
        let target = Target {
            name: "f".to_owned(),
            path: String::new(),
            label: labels::NF,
            functions: vec![json!({"metadata": {"name": "f", "uid": "u"}})],
        };
        let operation = |uid: &str, kind| {
            let mut operation = Operation::default();
            let uid = (labels::FUNCTION_UID.to_owned(), uid.to_owned());
            operation.metadata.annotations = Some([uid].into());
            operation.spec.kinds = vec![kind];
            operation
        };
        let farewells = target.farewells(vec![
            operation("u", OperationKind::Deploy),
            operation("u", OperationKind::Undeploy),
            operation("earlier", OperationKind::Undeploy),
        ]);
        assert_eq!(farewells, [operation("u", OperationKind::Undeploy)]);
    }

    #[test]
    fn a_service_takes_its_own_functions_only() {
        let function = |name: &str, owner: &str| {
            let owner = json!({"controller": true, "uid": owner});
            json!({"metadata": {"name": name, "ownerReferences": [owner]}})
        };
        let service = json!({"metadata": {"uid": "s"}});
        let functions = vec![
            function("a", "s"),
            function("b", "other"),
            json!({"metadata": {"name": "c"}}),
        ];
        assert_eq!(members(&service, functions), [function("a", "s")]);
    }
}
