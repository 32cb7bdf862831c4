//! Runs seeds on all cores: `gantry-sim --seeds N [--from S]`. Stops at the first that fails, prints its history and how to
//! replay it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use gantry_sim::{Failure, Report};

/// Runs the deterministic simulation.
#[derive(Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(args.from);
    let end = args.from.saturating_add(args.seeds);
    let sums = Mutex::new(Report::default());
    let work = || -> Result<(), Failure> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            match gantry_sim::run(seed) {
                Ok(report) => add(&mut sums.lock().expect("no worker panics with the lock"), &report),
                Err(failure) => {
                    next.store(end, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let results: Vec<Result<(), Failure>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .map(|h| h.join().expect("a panic of the simulation is a bug of its own"))
            .collect()
    });
    if let Some(failure) = results.into_iter().find_map(Result::err) {
        for line in &failure.history {
            println!("  {line}");
        }
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    let sums = sums.into_inner().expect("no worker panicked");
    println!(
        "{} seeds from {}: every oracle held after each of {} steps; {} faults, {} plans, {} operations, {} sessions, {} of them cut by faults",
        args.seeds,
        args.from,
        sums.steps,
        sums.faults,
        sums.plans,
        sums.operations,
        sums.sessions,
        sums.sessions_cut_by_faults
    );
    ExitCode::SUCCESS
}

fn add(sums: &mut Report, report: &Report) {
    sums.steps += report.steps;
    sums.plans += report.plans;
    sums.operations += report.operations;
    sums.sessions += report.sessions;
    sums.sessions_cut_by_faults += report.sessions_cut_by_faults;
    sums.faults += report.faults;
}
