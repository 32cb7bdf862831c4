//! The `gantry` command: one front door to the control plane, the catalog, the images and this machine.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod backup;
mod catalog;
mod certs;
mod client;
mod daemon;
mod data_dir;
mod deploy;
mod down;
mod examples;
mod functions;
mod get;
mod guard;
mod image;
mod logs;
mod manifest;
mod operate;
mod operation;
mod output;
mod plan;
mod pod;
mod pod_resize;
mod pod_table;
mod port_forward;
mod preflight;
mod server;
mod status;
mod terminal;
mod top;
mod undeploy;
mod up;
mod waiting;
mod write;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use client::Client;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            gantry_log::say(format_args!("gantry: {}", chain(&error)));
            ExitCode::from(if error.is::<plan::NoRoom>() { 2 } else { 1 })
        }
    }
}

/// An error with its causes, none of them twice. What others named may be in it: what a terminal would act on is escaped.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    let told = |c: char| match c {
        c if c.is_control() && c != '\n' => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(told).collect()
}

fn start(cli: &Cli) -> Result<u8> {
    match &cli.command {
        Command::Server(args) => return server::run(args, &cli.global).map(|()| 0),
        Command::Render => return Ok(gantry_orchestrator::renderer::serve().map(|()| 0)?),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "gantry", &mut script);
            return output::write_out(&String::from_utf8_lossy(&script)).map(|()| 0);
        }
        Command::Catalog(command) => return catalog::run(command, cli.global.output).map(|()| 0),
        Command::Service(command) => return catalog::service(command, cli.global.output).map(|()| 0),
        Command::Image(command) => return image::run(command, &cli.global).map(|()| 0),
        Command::Restore(args) => return backup::restore(args, &cli.global).map(|()| 0),
        Command::Kubeconfig { user } => return certs::kubeconfig(user.as_deref(), &cli.global).map(|()| 0),
        Command::Down(args) => return down::down(args, &cli.global).map(|()| 0),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run(cli));
    // A read of standard input may still wait for a key: nobody else waits for it.
    runtime.shutdown_background();
    result
}

async fn run(cli: &Cli) -> Result<u8> {
    let global = &cli.global;
    match &cli.command {
        Command::Up(args) => return up::up(args, global).await.map(|()| 0),
        Command::Backup(args) => return backup::backup(args, global).await.map(|()| 0),
        Command::Status => return status::status(global).await,
        Command::Version => return version(global).await.map(|()| 0),
        Command::Certs(command) => return certs::run(command, global).await.map(|()| 0),
        _ => {}
    }
    let client = Client::connect(global).await?;
    let done = match &cli.command {
        Command::Deploy(args) => deploy::deploy(&client, args, global).await,
        Command::Undeploy(args) => undeploy::undeploy(&client, args, global.output).await,
        Command::Scale(args) => operate::scale(&client, args, global.output).await,
        Command::Resize(args) => operate::resize(&client, args, global.output).await,
        Command::Upgrade(args) => operate::upgrade(&client, args, global.output).await,
        Command::Rollback(args) => operate::rollback(&client, args, global.output).await,
        Command::Plan(args) => return plan::plan(&client, args, global.output).await,
        Command::Explain { pod } => plan::explain(&client, pod, global.output).await,
        Command::Receipt { operation } => {
            operation::receipt(&client, operation.as_deref(), global.output).await
        }
        Command::Get { names } => get::get(&client, names, global.output).await,
        Command::Top(args) => top::top(&client, args, global.output).await,
        Command::Logs(args) => logs::logs(&client, args).await,
        Command::PortForward(args) => port_forward::run(&client, args).await,
        Command::Exec(args) => return pod::exec(&client, args).await,
        _ => unreachable!("handled before a client was needed"),
    };
    done.map(|()| 0)
}

async fn version(global: &args::Global) -> Result<()> {
    let server: Option<serde_json::Value> = match Client::connect(global).await {
        Ok(client) => client.get("/version").await.ok(),
        Err(_) => None,
    };
    let value = serde_json::json!({"client": env!("CARGO_PKG_VERSION"), "server": server});
    output::print(global.output, &value, || {
        let server = server
            .as_ref()
            .and_then(|s| s["gitVersion"].as_str())
            .unwrap_or("not reachable");
        format!("client {}\nserver {server}\n", env!("CARGO_PKG_VERSION"))
    })
}
