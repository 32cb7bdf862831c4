//! `gantry logs`: of one pod, or of all pods of a function or service together.

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt};
use futures::{AsyncBufReadExt, Stream, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use crate::args::LogsArgs;
use crate::client::{Client, said};
use crate::{functions, output};

/// `gantry logs`.
pub async fn logs(client: &Client, args: &LogsArgs) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.kube(), &client.namespace);
    let params = LogParams {
        container: args.container.clone(),
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        ..LogParams::default()
    };
    if pods.get_opt(&args.name).await.map_err(said)?.is_some() {
        let lines = lines(&pods, &args.name, &params).await?;
        return print(lines).await;
    }
    let functions = functions::load(client, std::slice::from_ref(&args.name)).await;
    let functions = functions.with_context(|| format!("no pod {}", args.name))?;
    let names: Vec<&str> = (functions.iter().flat_map(|f| &f.pods))
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut all = Vec::new();
    for pod in names {
        match lines(&pods, pod, &params).await {
            Ok(lines) => all.push(
                lines
                    .map_ok(move |line| format!("{pod:width$} | {line}"))
                    .boxed_local(),
            ),
            // The others are read all the same.
            Err(error) => gantry_log::say(format_args!("gantry: {error:#}")),
        }
    }
    match args.follow {
        true => print(stream::select_all(all)).await,
        // One pod after the other, as nothing more comes.
        false => print(stream::iter(all).flatten()).await,
    }
}

async fn lines(
    pods: &Api<Pod>,
    pod: &str,
    params: &LogParams,
) -> Result<impl Stream<Item = std::io::Result<String>> + use<>> {
    let stream = pods.log_stream(pod, params).await.map_err(said);
    Ok(stream.with_context(|| format!("no logs of pod {pod}"))?.lines())
}

async fn print(lines: impl Stream<Item = std::io::Result<String>>) -> Result<()> {
    let mut lines = std::pin::pin!(lines);
    while let Some(line) = lines.try_next().await.context("the log stream broke off")? {
        output::write_out(&(line + "\n"))?;
    }
    Ok(())
}
