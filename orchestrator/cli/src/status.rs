//! `gantry status`: everything at a glance.

use std::collections::BTreeMap;

use anyhow::Result;
use gantry_api::{NetworkFunction, NodeTopology, Operation, OperationPhase};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use serde_json::json;

use crate::args::{Global, Output};
use crate::client::Client;
use crate::output::{self, colour, table};
use crate::up::daemons;
use crate::{operation, pod_table};

/// The orchestrator's list of objects in the store that cannot be read.
const UNREADABLE: &str = "/api/v1/namespaces/kube-system/configmaps/gantry-unreadable";

/// `gantry status`. Exit code 0 when the control plane answers, its processes run and every node is Ready.
pub async fn status(global: &Global) -> Result<u8> {
    let data_dir = global.data_dir();
    let processes: Vec<(&str, Option<i32>)> = daemons(&data_dir)
        .iter()
        .map(|d| (d.name(), d.running()))
        .collect();
    let view = match Client::connect(global).await {
        Ok(client) => View::load(&client).await,
        Err(error) => Err(error),
    };
    let (view, error) = match view {
        Ok(view) => (view, None),
        Err(error) => (View::default(), Some(format!("{error:#}"))),
    };
    let value = json!({
        "processes": processes.iter().map(|(name, pid)| json!({"name": name, "pid": pid})).collect::<Vec<_>>(),
        "error": error,
        "nodes": view.nodes,
        "networkFunctions": view.functions,
        "pods": view.pods,
        "operations": view.running,
        "unreadable": view.unreadable,
    });
    output::print(global.output, &value, || {
        let rows = processes.iter().map(|(name, pid)| match pid {
            Some(pid) => [(*name).to_owned(), colour("running", true), pid.to_string()],
            None => [(*name).to_owned(), colour("stopped", false), "-".to_owned()],
        });
        let mut text = table(["PROCESS", "STATUS", "PID"], rows);
        match &error {
            Some(error) => text += &format!("\n{error}\n"),
            None => text += &view.text(global.output == Output::Wide),
        }
        text
    })?;
    // Without settings nothing was ever started from here: the control plane is another machine's.
    let local = matches!(data_dir.load_settings(), Ok(Some(_)));
    let stopped = local && processes.iter().any(|(_, pid)| pid.is_none());
    let unready = view.nodes.iter().any(|node| node_state(node) != "Ready");
    Ok(u8::from(error.is_some() || stopped || unready))
}

fn node_state(node: &Node) -> &'static str {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    match conditions.into_iter().find(|c| c.type_ == "Ready") {
        Some(ready) if ready.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
}

#[derive(Default)]
struct View {
    nodes: Vec<Node>,
    /// Of the namespace.
    pods: Vec<Pod>,
    /// How many pods of all namespaces each node has.
    on_nodes: BTreeMap<String, usize>,
    topologies: Vec<NodeTopology>,
    functions: Vec<NetworkFunction>,
    running: Vec<Operation>,
    /// Why, by kind, namespace and name.
    unreadable: BTreeMap<String, String>,
}

impl View {
    async fn load(client: &Client) -> Result<Self> {
        let mut running: Vec<Operation> = client.list(&client.own(Operation::PLURAL)).await?;
        running.retain(|o| o.status.phase == OperationPhase::Running);
        let unreadable: Option<ConfigMap> = client.find(UNREADABLE).await?;
        let mut pods: Vec<Pod> = client.list("/api/v1/pods").await?;
        let mut on_nodes = BTreeMap::new();
        for node in pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()) {
            *on_nodes.entry(node).or_default() += 1;
        }
        pods.retain(|p| p.metadata.namespace.as_deref() == Some(&client.namespace));
        Ok(Self {
            nodes: client.list("/api/v1/nodes").await?,
            pods,
            on_nodes,
            topologies: client.list(&Client::own_cluster(NodeTopology::PLURAL)).await?,
            functions: client.list(&client.own(NetworkFunction::PLURAL)).await?,
            running,
            unreadable: unreadable.and_then(|m| m.data).unwrap_or_default(),
        })
    }

    fn text(&self, wide: bool) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let name = node.metadata.name.clone().unwrap_or_default();
            let pods = self.on_nodes.get(&name).copied().unwrap_or_default();
            let state = node_state(node);
            [name, colour(state, state == "Ready"), pods.to_string()]
        });
        let functions = self.functions.iter().map(|nf| {
            let status = &nf.status;
            [
                nf.metadata.name.clone().unwrap_or_default(),
                format!("{}-{}", nf.spec.package, nf.spec.version),
                format!("{}/{}", status.ready_replicas, nf.spec.replicas),
                status.draining_replicas.to_string(),
                status.vip.clone(),
                status.sessions.map_or("-".to_owned(), |s| s.to_string()),
                status.message.clone(),
            ]
        });
        let mut text = format!("\n{}", table(["NODE", "STATUS", "PODS"], nodes));
        if !self.functions.is_empty() {
            let headings = [
                "FUNCTION", "PACKAGE", "READY", "DRAINING", "VIP", "SESSIONS", "MESSAGE",
            ];
            text += &format!("\n{}", table(headings, functions));
        }
        if !self.pods.is_empty() {
            text += &format!("\n{}", pod_table::render(&self.pods, &self.topologies, wide));
        }
        if !self.unreadable.is_empty() {
            let rows = self
                .unreadable
                .iter()
                .map(|(object, why)| [object.clone(), why.clone()]);
            text += &format!("\n{}", table(["LEFT AS IT IS", "WHY"], rows));
        }
        if !self.running.is_empty() {
            text += &format!("\n{}", operation::operations_table(&self.running));
        }
        text
    }
}
