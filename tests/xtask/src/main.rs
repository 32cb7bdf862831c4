//! `cargo xtask`: the project's chores. `demo` and `test` are README's two commands.

mod bench;
mod cost;
mod demo;
mod deny;
mod faults;
mod hostile;
mod prepare;
mod shell;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gantry_tests::volte;

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// The main job, end to end: real network functions, scaled under real calls, ending in a report
    Demo(DemoArgs),
    /// Everything that CI checks
    Test(TestArgs),
    /// Runs the deterministic simulation
    Sim(SimArgs),
    /// Runs tests that touch the kernel in a machine of two sockets with cgroup v2 alone (QEMU)
    Vm(VmArgs),
    /// Power cuts on a disk that forgets what was not synced, and kills under write load: nothing acknowledged is lost
    Durability(DurabilityArgs),
    /// Runs what hostile tenants try, each with its control; prints the table
    Hostile(HostileArgs),
    /// The judge of calls judged: faults between devices and core, each counted exactly; prints the table
    Faults,
    /// Runs benchmarks; one table of figures, each with a peer or floor measured in the same run
    Bench(BenchArgs),
    /// An IMS core under calls, on Gantry and in turn as the same programs started by hand; what the difference is
    Cost(CostArgs),
}

#[derive(clap::Args)]
struct DemoArgs {
    /// What is shown: the SIP core that is changed in every way, or a whole core network
    #[arg(value_enum, default_value_t = Show::SipCore)]
    show: Show,
    /// Of volte: how many devices
    #[arg(long, default_value_t = 200)]
    devices: u64,
    /// Of volte: calls that are begun in a second, of 5 to 10 seconds: some seven times as many are up at once
    #[arg(long, default_value_t = 9)]
    calls: u32,
    /// Of volte: how long the devices are there
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// Leave everything running at the end
    #[arg(long)]
    keep: bool,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Show {
    /// A SIP core, changed in every way under calls
    SipCore,
    /// Voice over LTE on one server: attached, registered and calling subscribers
    Volte,
}

#[derive(clap::Args)]
struct TestArgs {
    /// Without the end-to-end demo
    #[arg(long)]
    quick: bool,
}

#[derive(clap::Args)]
struct SimArgs {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
}

#[derive(clap::Args)]
struct VmArgs {
    /// Only test targets with this in their name
    only: Option<String>,
}

#[derive(clap::Args)]
struct DurabilityArgs {
    /// Histories with power cuts, of the store and of the agent's ledger
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// Kills of the orchestrator and of the agent, each half of it
    #[arg(long, default_value_t = 200)]
    kills: u64,
}

#[derive(clap::Args)]
struct HostileArgs {
    #[command(subcommand)]
    table: Option<hostile::Table>,
}

#[derive(clap::Args)]
struct BenchArgs {
    /// Only this one
    name: Option<String>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(clap::Args)]
struct CostArgs {
    #[command(flatten)]
    load: cost::Load,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Demo(args) => {
            let report = args.report.as_deref();
            match args.show {
                Show::SipCore => demo::run(args.keep, report, demo::Strictness::All),
                Show::Volte => {
                    let load = volte::Load::whole(args.devices, args.calls, args.seconds);
                    demo::volte::run(load, args.keep, report)
                }
            }
        }
        Chore::Test(args) => test::run(args.quick),
        Chore::Sim(args) => shell::sim(args.from, args.seeds),
        Chore::Vm(args) => {
            vm::run(args.only.as_deref(), |line| println!("{line}")).and_then(|output| output.judge())
        }
        Chore::Durability(args) => shell::durability(args.runs, args.kills),
        Chore::Hostile(args) => hostile::run(args.table.as_ref()),
        Chore::Faults => faults::run(),
        Chore::Bench(args) => bench::run(args.name.as_deref(), args.report.as_deref()),
        Chore::Cost(args) => cost::run(&args.load, args.report.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
