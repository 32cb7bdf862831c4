//! Talking to the control plane: any object by its REST path, errors in words.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gantry_api::{GROUP, VERSION};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Global;
use crate::data_dir::DataDir;

/// A connection to the API server, and the namespace that names are looked up in.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    pub namespace: String,
}

impl Client {
    /// Connects by the kubeconfig that the options or the environment name: that may well be a pipe (`--kubeconfig <(...)`).
    pub async fn connect(global: &Global) -> Result<Self> {
        let (path, data_dir) = (global.kubeconfig(), global.data_dir());
        if path == data_dir.kubeconfig() {
            return Self::of_data_dir(&data_dir, &global.namespace).await;
        }
        let config = Kubeconfig::read_from(&path).with_context(|| unreadable(&path))?;
        Self::with(config, &path, &global.namespace).await
    }

    /// Connects by the kubeconfig of a data directory.
    pub async fn of_data_dir(data_dir: &DataDir, namespace: &str) -> Result<Self> {
        let path = data_dir.kubeconfig();
        let text = data_dir.read_kubeconfig().with_context(|| unreadable(&path))?;
        let config = Kubeconfig::from_yaml(&text).with_context(|| unreadable(&path))?;
        Self::with(config, &path, namespace).await
    }

    async fn with(config: Kubeconfig, path: &Path, namespace: &str) -> Result<Self> {
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig {} is not usable", path.display()))?;
        let kube = kube::Client::try_from(config).context("cannot set up TLS to the API server")?;
        Ok(Self {
            kube,
            namespace: namespace.to_owned(),
        })
    }

    /// The typed client, for logs and exec.
    pub fn kube(&self) -> kube::Client {
        self.kube.clone()
    }

    /// Path of one of Gantry's own namespaced kinds.
    pub fn own(&self, plural: &str) -> String {
        Self::own_in(&self.namespace, plural)
    }

    /// The same in another namespace.
    pub fn own_in(namespace: &str, plural: &str) -> String {
        format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}")
    }

    /// Path of one of Gantry's own cluster-wide kinds.
    pub fn own_cluster(plural: &str) -> String {
        format!("/apis/{GROUP}/{VERSION}/{plural}")
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::GET, path, None, "").await
    }

    /// `None` when there is no such object.
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_status(&error, 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The items of a list.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut list: Value = self.get(path).await?;
        serde_json::from_value(list["items"].take())
            .with_context(|| format!("the list {path} is not understood"))
    }

    pub async fn create<T: Serialize>(&self, path: &str, object: &T) -> Result<Value> {
        self.send(
            Method::POST,
            path,
            Some(serde_json::to_vec(object)?),
            "application/json",
        )
        .await
    }

    pub async fn replace<T: Serialize>(&self, path: &str, object: &T) -> Result<Value> {
        self.send(
            Method::PUT,
            path,
            Some(serde_json::to_vec(object)?),
            "application/json",
        )
        .await
    }

    pub async fn merge_strategic(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send(
            Method::PATCH,
            path,
            Some(serde_json::to_vec(patch)?),
            "application/strategic-merge-patch+json",
        )
        .await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send(
            Method::PATCH,
            path,
            Some(serde_json::to_vec(patch)?),
            "application/merge-patch+json",
        )
        .await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.send(
            Method::POST,
            path,
            Some(serde_json::to_vec(body)?),
            "application/json",
        )
        .await
    }

    /// True if there was something to delete.
    pub async fn delete(&self, path: &str) -> Result<bool> {
        match self.send::<Value>(Method::DELETE, path, None, "").await {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        content_type: &str,
    ) -> Result<T> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request
            .body(body.unwrap_or_default())
            .with_context(|| format!("`{path}` is no path"))?;
        match self.kube.request::<T>(request).await {
            Ok(answer) => Ok(answer),
            Err(error @ kube::Error::Api(_)) => Err(said(error)),
            Err(error) => Err(said(error)
                .context("no answer from the API server; see `gantry status`, and `gantry up` to start it")),
        }
    }
}

fn unreadable(path: &Path) -> String {
    format!(
        "cannot read the kubeconfig {}; start Gantry with `gantry up`, or name one with --kubeconfig",
        path.display()
    )
}

/// The error, the API server's "no" in its own words.
pub fn said(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => Refused {
            code: status.code,
            message: status.message.clone(),
        }
        .into(),
        other => other.into(),
    }
}

/// The API server's "no", in its own words.
#[derive(Debug)]
struct Refused {
    code: u16,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

/// Whether an error is the API server's answer with this HTTP status.
pub fn is_status(error: &anyhow::Error, code: u16) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.code == code)
}

/// Whether the API server has understood the request and says no: asking again does not help.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| (400..500).contains(&refused.code) && refused.code != 429)
}

/// Reads a NetworkFunction's neighbourly error: which names there are.
pub async fn missing_function(client: &Client, name: &str) -> anyhow::Error {
    let names: Vec<String> = match client.list::<Value>(&client.own("networkfunctions")).await {
        Ok(items) => items
            .iter()
            .filter_map(|i| i["metadata"]["name"].as_str().map(str::to_owned))
            .collect(),
        Err(error) => return error,
    };
    let there = if names.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    };
    anyhow::anyhow!(
        "no network function `{name}` in namespace {}; {there}",
        client.namespace
    )
}

/// Splits `NAME=VALUE`.
pub fn key_value(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("`{text}`: write NAME=VALUE"),
    }
}
