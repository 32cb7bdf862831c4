//! `gantry-nodeagent`: the agent of a node, and the small processes that it makes of itself.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gantry_nodeagent::runtime::sealed;
use gantry_nodeagent::shim::fresh;

#[derive(Parser)]
#[command(
    name = "gantry-nodeagent",
    version,
    about = "Makes one node match its configuration"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// `shim` and `exec` run before any thread exists: they fork.
#[derive(Subcommand)]
enum Command {
    /// Be the parent of one pod's containers (started by the agent)
    Shim(gantry_nodeagent::shim::Args),
    /// Run a command in a running container
    Exec(gantry_nodeagent::exec::Args),
    /// Make this node match what the orchestrator wants
    Agent(Box<gantry_nodeagent::agent::Args>),
    /// Take everything of one Gantry off this node
    Purge(gantry_nodeagent::agent::PurgeArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let name = match &command {
        Command::Shim(_) => Some("gantry-shim"),
        Command::Exec(_) => Some("gantry-exec"),
        Command::Agent(_) => Some("gantry-nodeagent"),
        Command::Purge(_) => None,
    };
    if matches!(command, Command::Shim(_) | Command::Exec(_)) {
        fresh::descriptors();
    }
    if let Some(Err(error)) = name.map(sealed::enter) {
        gantry_log::say(format_args!(
            "gantry-nodeagent: cannot run from a sealed copy of itself: {error}"
        ));
        return ExitCode::FAILURE;
    }
    match command {
        Command::Shim(args) => gantry_nodeagent::shim::main(&args),
        Command::Exec(args) => gantry_nodeagent::exec::main(&args),
        Command::Agent(args) => report(gantry_nodeagent::agent::main(&args)),
        Command::Purge(args) => report(gantry_nodeagent::agent::purge(&args)),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            gantry_log::say(format_args!("gantry-nodeagent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
