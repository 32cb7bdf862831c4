//! `gantry exec`.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, copy, stderr, stdin, stdout};

use crate::args::ExecArgs;
use crate::client::{Client, said};
use crate::terminal::{self, Raw};

/// What has come is printed within, once the session has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// `gantry exec`: returns the command's exit code.
pub async fn exec(client: &Client, args: &ExecArgs) -> Result<u8> {
    let pods: Api<Pod> = Api::namespaced(client.kube(), &client.namespace);
    let params = AttachParams {
        container: args.container.clone(),
        ..AttachParams::default()
    }
    .stdin(args.stdin)
    .tty(args.tty)
    .stdout(true)
    .stderr(!args.tty);
    let mut process = pods
        .exec(&args.pod, &args.command, &params)
        .await
        .map_err(said)
        .with_context(|| format!("cannot run `{}` in pod {}", args.command.join(" "), args.pod))?;
    let _raw = if args.tty { Some(Raw::enter()?) } else { None };
    if args.tty {
        terminal::follow_size(&mut process)?;
    }
    let out = process.stdout();
    let err = process.stderr();
    let input = process.stdin();
    let feed = tokio::spawn(async move {
        if let Some(mut input) = input {
            let _ = copy(&mut stdin(), &mut input).await;
            // The command waits for the end of its input, which is no end of the session.
            let _ = input.shutdown().await;
        }
    });
    let print = async {
        if let Some(mut out) = out {
            let _ = copy(&mut out, &mut stdout()).await;
        }
    };
    let complain = async {
        if let Some(mut err) = err {
            let _ = copy(&mut err, &mut stderr()).await;
        }
    };
    let status = process
        .take_status()
        .context("the API server gives no exit status")?;
    let mut show = std::pin::pin!(async { tokio::join!(print, complain) });
    // Cancel-safe: the outputs are polled on. They have no end where the connection broke off: that ends the session, too.
    let ended = tokio::select! {
        _ = &mut show => Ok(()),
        ended = process.join() => {
            let _ = tokio::time::timeout(LAST_WORDS, show).await;
            ended
        }
    };
    feed.abort();
    let status = status.await;
    if status.is_none() {
        ended.with_context(|| format!("the session in pod {} broke off", args.pod))?;
    }
    Ok(exit_code(
        status.map(|s| serde_json::to_value(s).unwrap_or_default()),
    ))
}

/// The exit code in a Kubernetes exec status: cause `ExitCode`.
fn exit_code(status: Option<Value>) -> u8 {
    let Some(status) = status else { return 1 };
    if status["status"] == "Success" {
        return 0;
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .filter(|c| c["reason"] == "ExitCode")
        .find_map(|c| c["message"].as_str()?.parse().ok());
    code.unwrap_or(1)
}
