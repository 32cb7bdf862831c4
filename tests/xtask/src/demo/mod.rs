//! The main job, end to end: a SIP core from the catalog, placed, pinned, wired, and changed in every way while it
//! carries calls; then the same length undisturbed; then a report that compares the two.

mod bars;
mod report;
pub mod volte;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use gantry_catalog::MilliCpu;
use gantry_tests::gantry::{Gantry, Instance};
use gantry_tests::leftovers::Leftovers;
use gantry_tests::scraper::{Counters, Scraper};
use gantry_tests::{Images, load, processes, sip};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::prepare;
use report::{Report, Share, Spread, Step};

/// Calls must be up and going before the first change.
const WARM_UP: Duration = Duration::from_secs(15);
/// Between two changes, so that each has its own seconds in the records.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the spread over instances is counted.
const SPREAD: Duration = Duration::from_secs(20);
/// How long the orchestrator stays dead.
const OUTAGE: Duration = Duration::from_secs(60);

/// Not the default ones: a Gantry that runs here already is left alone.
pub const NETWORKS: [&str; 4] = ["--pod-cidr", "10.187.0.0/16", "--service-cidr", "10.188.0.0/16"];
/// How long the run is undisturbed where times are not judged.
const COMPARISON_MS: u64 = 60_000;
/// How long a service may stay away before we give up on it.
const AWAY: Duration = Duration::from_secs(60);

/// Which bars make the demo fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// All.
    All,
    /// Those that count; times of a noisy machine are only reported.
    Counts,
}

/// Builds, runs, reports. Fails when a bar is missed.
pub fn run(keep: bool, report_file: Option<&Path>, strictness: Strictness) -> Result<()> {
    prepare::for_pods("demo")?;
    let before = Leftovers::now()?;
    let gantry = Gantry::new("demo", keep)?;
    let report = play(&gantry, strictness)?;
    if let Some(file) = report_file {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{report}");
    if keep {
        println!(
            "kept: export KUBECONFIG={}/kubeconfig; gantry --data-dir {}",
            gantry.path().display(),
            gantry.path().display()
        );
    } else {
        gantry.run(&["undeploy", "load", "sip-core"])?;
        drop(gantry);
        before.ensure_nothing_new()?;
        println!("`down --purge` left nothing behind");
    }
    bars::verdict(&report.bars, strictness)
}

fn play(gantry: &Gantry, strictness: Strictness) -> Result<Report> {
    gantry.first_up(&NETWORKS)?;
    gantry.import_images(Images::SIP)?;
    gantry.run(&["deploy", "sip-core"])?;
    gantry.run(&["deploy", "sip-load", "--name", "load", "--peer", "pcscf=pcscf"])?;
    let scraper = Scraper::start({
        // While the orchestrator is down, the instances last seen go on.
        let (viewer, mut known) = (gantry.viewer(), Vec::new());
        move || {
            known = viewer.instances("pcscf").unwrap_or_else(|_| known.clone());
            known.clone()
        }
    });
    sleep(WARM_UP);

    let mut script = Script {
        gantry,
        steps: Vec::new(),
    };
    let started_ms = now_ms();
    let spreads = operations(&mut script, &scraper)?;
    let disturbed_ms = now_ms() - started_ms;
    let calm_ms = match strictness {
        Strictness::All => disturbed_ms,
        Strictness::Counts => disturbed_ms.min(COMPARISON_MS),
    };
    eprintln!("undisturbed for {} s", calm_ms / 1000);
    let calm_from_ms = now_ms();
    sleep(Duration::from_millis(calm_ms));
    let calm_to_ms = now_ms();

    let (records, exit_code) = load::finish(gantry)?;
    sleep(Duration::from_secs(1));
    let counters = scraper.counters();
    drop(scraper);
    let facts = report::Facts {
        restarts: restarts(gantry)?,
        receipts: gantry.json(&["receipt"])?,
        exit_code,
        counters,
        spreads,
        away_after_kill_ms: kill_an_instance(gantry)?,
    };
    Ok(Report::new(
        &script.steps,
        (started_ms, started_ms + disturbed_ms),
        (calm_from_ms, calm_to_ms),
        &records,
        facts,
    ))
}

struct Script<'a> {
    gantry: &'a Gantry,
    steps: Vec<Step>,
}

impl Script<'_> {
    fn step(&mut self, name: &str, act: impl FnOnce(&Gantry) -> Result<()>) -> Result<()> {
        let from_ms = now_ms();
        act(self.gantry).with_context(|| format!("step `{name}`"))?;
        self.steps.push(Step {
            name: name.to_owned(),
            from_ms,
            to_ms: now_ms(),
        });
        sleep(SETTLE);
        Ok(())
    }
}

fn operations(script: &mut Script<'_>, scraper: &Scraper) -> Result<Vec<Spread>> {
    script.step("scale out 1 -> 4", |g| {
        g.run(&["scale", "pcscf", "--replicas", "4"])
    })?;
    let mut spreads = Vec::new();
    let mut spread = |script: &mut Script<'_>, name: &str| {
        script.step(name, |g| {
            spreads.push(Spread {
                name: name.to_owned(),
                shares: count_spread(g, scraper)?,
            });
            Ok(())
        })
    };
    spread(script, "(four instances of one size)")?;
    let instances = script.gantry.instances("pcscf")?;
    let biggest = &instances.first().context("the proxies are gone")?.name;
    script.step("resize one instance to twice the CPU", |g| {
        g.run(&["resize", biggest, "--cpu", "400m"])
    })?;
    spread(script, "(one instance twice as big)")?;
    script.step("scale in 4 -> 2", |g| {
        g.run(&["scale", "pcscf", "--replicas", "2"])
    })?;
    script.step("resize CPU and memory up", |g| {
        g.run(&["resize", "pcscf", "--cpu", "300m", "--memory", "192Mi"])
    })?;
    script.step("resize CPU and memory down", |g| {
        g.run(&["resize", "pcscf", "--cpu", "200m", "--memory", "128Mi"])
    })?;
    script.step("upgrade", |g| {
        g.run(&["upgrade", "pcscf", "--set", "configVersion=\"2\""])?;
        ensure_version(g, "2")
    })?;
    script.step("roll back", |g| {
        g.run(&["rollback", "pcscf"])?;
        ensure_version(g, "1")
    })?;
    script.step("restart the node agent", |g| {
        restart(g, "nodeagent", Signal::SIGTERM, Duration::ZERO)
    })?;
    script.step("kill -9 the orchestrator, a minute without it", |g| {
        restart(g, "orchestrator", Signal::SIGKILL, OUTAGE)
    })?;
    Ok(spreads)
}

/// Fails unless all instances, and only they, run with this version of the configuration.
fn ensure_version(gantry: &Gantry, version: &str) -> Result<()> {
    for Instance { name, .. } in gantry.instances("pcscf")? {
        let config = gantry.read_file(&name, "/etc/kamailio/kamailio.cfg")?;
        ensure!(
            config.contains(&format!("config version {version}.")),
            "{name} does not run configuration version {version}"
        );
    }
    Ok(())
}

/// Ends one of the processes and starts it again after a while.
fn restart(gantry: &Gantry, process: &str, signal: Signal, outage: Duration) -> Result<()> {
    gantry.end_process(process, signal)?;
    sleep(outage);
    gantry.up()
}

/// How many new calls each instance takes over a while, beside its size.
fn count_spread(gantry: &Gantry, scraper: &Scraper) -> Result<Vec<Share>> {
    let calls = |counters: &BTreeMap<String, Counters>, pod: &Value| {
        let counted = Instance::of_pod(pod).and_then(|instance| counters.get(&instance.id()));
        counted.map_or(0.0, report::calls)
    };
    let before = scraper.counters();
    sleep(SPREAD);
    let after = scraper.counters();
    let share = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]
            .as_str()
            .unwrap_or_default();
        let cpu_milli = request.parse::<MilliCpu>().unwrap_or_default().0;
        Share {
            calls: (calls(&after, pod) - calls(&before, pod)) as u64,
            pod: name,
            cpu_milli,
        }
    };
    Ok(gantry.pods("pcscf")?.iter().map(share).collect())
}

/// `kill -9` of an instance, once there are no more calls to lose: milliseconds until the service answers every source again.
fn kill_an_instance(gantry: &Gantry) -> Result<u64> {
    let vip = gantry.vip("pcscf")?;
    let pods = gantry.pods("pcscf")?;
    processes::kill_pod(pods.first().context("the proxies are gone")?)?;
    let away = sip::back_after(&vip, AWAY)?.context("the service stays away after a kill -9")?;
    Ok(u64::try_from(away.as_millis())?)
}

/// Restarts of containers over all pods.
fn restarts(gantry: &Gantry) -> Result<u64> {
    let status = gantry.json(&["status"])?;
    let containers = status["pods"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|p| p["status"]["containerStatuses"].as_array().into_iter().flatten());
    Ok(containers.filter_map(|c| c["restartCount"].as_u64()).sum())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
