//! Puts the agent's tasks together, starts and ends them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use gantry_nodeagent_api::{Generation, Hello};
use gantry_topology::{CpuSet, Topology};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cni::Cni;
use super::dns::{Bounds, Rate, Server};
use super::driver::{Clock, Driver, Hands, heavy};
use super::ledger::LedgerFile;
use super::link::Link;
use super::lock::{self, Instance};
use super::netns::NetnsDir;
use super::network::Network;
use super::observe::observe;
use super::pods::Pods;
use super::storage::{self, Meter};
use super::watch::Watches;
use super::{Args, Settings};
use super::{excess, memory, session};
use crate::chain::chain;
use crate::core::{Event, State};
use crate::guard;
use crate::host::cgroup::Cgroups;
use crate::runtime::ids::IdRanges;
use crate::runtime::{ClaimsDir, RuntimeDir, oom};
use crate::shim::fresh;

const EVENT_QUEUE: usize = 1024;
const SMALL_QUEUE: usize = 32;
const COUNTERS_PERIOD: Duration = Duration::from_secs(2);
const DNS_PORT: u16 = 53;
/// How long blocking work may go on when the agent ends; whatever is cut off is repeated by the next agent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What was large goes back to the kernel when it is free, and threads share what is small: by itself the C library keeps a
/// configuration of some MiB once for each thread that has written one (mallopt(3)).
fn give_memory_back() {
    use nix::libc;
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes numbers only, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Runs the agent until SIGTERM or SIGINT. Pods stay.
pub fn main(args: &Args) -> anyhow::Result<()> {
    gantry_log::start(args.log_file.as_deref());
    give_memory_back();
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "the agent makes namespaces, mounts and cgroups: start it as root"
    );
    let settings = args.settings()?;
    fresh::oom_score_adj(oom::AGENT);
    // Each pod costs a descriptor, each session some: 1024 is soon too little.
    raise_open_files();
    fresh::leave_half_to_host();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let ender = cancel.clone();
        tokio::spawn(async move {
            // Cancel-safe: signals are counted by the kernel.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("the agent ends; pods go on");
            ender.cancel();
        });
        run(settings, cancel).await
    });
    // Work on a pod is given time to end; a read from a terminal or a log that never ends is not.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    ended
}

/// Runs the agent until cancelled.
pub async fn run(settings: Settings, cancel: CancellationToken) -> anyhow::Result<()> {
    let _lock = lock::directory(&settings.agent_dir)?;
    let cgroups = Cgroups::detect(&settings.instance)?;
    let _instance = Instance::claim(&settings.instance, &settings.agent_dir, &cgroups)?;
    let settings = Arc::new(settings);
    let (answers, events) = mpsc::channel(EVENT_QUEUE);
    let (dns, tables) = watch::channel(None);
    let (status, statuses) = watch::channel(None);
    let (refusals, refused) = mpsc::channel(SMALL_QUEUE);
    let (sessions, session_requests) = mpsc::channel(SMALL_QUEUE);
    let cni = Cni::new(&settings.cni_bin, &settings.agent_dir, &settings.instance);
    let file = LedgerFile::new(&settings.agent_dir);
    let ledger = file.load(settings.cluster.as_deref());
    let cluster = settings
        .cluster
        .clone()
        .unwrap_or_else(|| ledger.config.cluster.clone());
    let topology = crate::host::topology::read(Path::new("/"))?;
    let allocatable = memory::allocatable(&topology, settings.reserved_memory_bytes);
    let pods = Arc::new(Pods {
        runtime: RuntimeDir::new(&settings.agent_dir),
        cgroups,
        netns: NetnsDir::new(&settings.agent_dir),
        ids: IdRanges::new(&settings.agent_dir),
        claims: ClaimsDir::new(&settings.agent_dir),
        cni: cni.clone(),
        watches: Watches::new(answers.clone()),
        network: std::sync::Mutex::new(ledger.config.network.clone()),
        memory_bytes: topology.memory_bytes(),
        settings: settings.clone(),
    });
    let network = Arc::new(Network::new(cni));
    let found = {
        let pods = pods.clone();
        let look = move || {
            memory::share_node(&pods.cgroups, pods.memory_bytes);
            memory::bound_pods(&pods.cgroups, allocatable);
            observe(&pods)
        };
        tokio::task::spawn_blocking(look).await??
    };
    tracing::info!(
        generation = ledger.config.generation.0,
        pods = found.pods.len(),
        "starting"
    );
    let (claims, counted_claims) = watch::channel(BTreeSet::new());
    let hands = Hands {
        claims,
        probe_places: Arc::default(),
        pods: pods.clone(),
        network: network.clone(),
        dns,
        ledger: file,
        status,
        refusals,
        answers: answers.clone(),
        heavy: heavy(),
    };
    let state = State::new(ledger);
    let mut driver = Driver {
        state: if guard::off("back-off") {
            state.without_back_off()
        } else {
            state
        },
        hands,
        events,
        clock: Clock::start(),
    };
    driver.feed(Event::Start(found));
    let link = Link {
        to: settings.orchestrator.clone(),
        hello: hello(&settings, topology, &cluster)?,
        status: statuses,
        refusals: refused,
        events: answers.clone(),
        sessions,
    };
    let dns_server = Server {
        tables,
        port: DNS_PORT,
        resolv_conf: "/etc/resolv.conf".into(),
        rate: if guard::off("dns-rate") {
            Rate::NONE
        } else {
            Rate::default()
        },
        places: if guard::off("dns-places") {
            Bounds::NONE
        } else {
            Bounds {
                give_way: !guard::off("dns-share"),
                ..Bounds::default()
            }
        },
        refused: Arc::default(),
        events: answers.clone(),
    };
    let refused = dns_server.refused.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(cancel.clone()));
    tasks.spawn(link.run(cancel.clone()));
    tasks.spawn(dns_server.run(cancel.clone()));
    tasks.spawn(excess::run(
        pods.clone(),
        network.clone(),
        answers.clone(),
        cancel.clone(),
    ));
    if !guard::off("ephemeral-storage") {
        let meter = Meter {
            pods: pods.clone(),
            claims: counted_claims,
            answers: answers.clone(),
        };
        tasks.spawn(meter.run(cancel.clone()));
    }
    tasks.spawn(session::run(pods, session_requests, cancel.clone()));
    tasks.spawn(count(network, refused, answers, cancel.clone()));
    // The first that ends ends all; normally it is because of the cancellation.
    let first = tasks.join_next().await;
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
    first
        .transpose()
        .context("a task of the agent panicked; see its log")
        .map(drop)
}

/// The name of refused DNS questions among the drops.
const DNS_REFUSED: &str = "DnsRateLimit";

/// Reports the datapath's counters, and the questions that DNS did not answer.
async fn count(
    network: Arc<Network>,
    refused: Arc<AtomicU64>,
    answers: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    loop {
        // Cancel-safe: time passes anyway.
        tokio::select! {
            () = tokio::time::sleep(COUNTERS_PERIOD) => {}
            () = cancel.cancelled() => return,
        }
        let network = network.clone();
        match tokio::task::spawn_blocking(move || network.counters()).await {
            Ok(Ok(Some(mut counters))) => {
                let refused = refused.load(Ordering::Relaxed);
                if refused > 0 {
                    counters.drops.insert(DNS_REFUSED.to_owned(), refused);
                }
                if answers.send(Event::Counters(counters)).await.is_err() {
                    return;
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(failure)) => {
                tracing::debug!(error = chain(&failure), "cannot read the datapath's counters")
            }
            Err(_) => return,
        }
    }
}

fn hello(settings: &Settings, topology: Topology, cluster: &str) -> anyhow::Result<Hello> {
    let reserved = settings
        .reserved_cpus
        .clone()
        .unwrap_or_else(|| first_core(&topology));
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    Ok(Hello {
        node: settings.node.clone(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        address: settings.address,
        topology,
        reserved,
        reserved_memory_bytes: settings.reserved_memory_bytes,
        storage: storage::of(&settings.agent_dir, settings.reserved_storage_bytes)?,
        generation: Generation(0),
        cluster: cluster.to_owned(),
    })
}

/// The CPUs of the first physical core; none on a node that has only one.
fn first_core(topology: &Topology) -> CpuSet {
    let Some(first) = topology.cpus.first() else {
        return CpuSet::new();
    };
    let core: CpuSet = topology
        .cpus
        .iter()
        .filter(|cpu| cpu.core == first.core)
        .map(|cpu| cpu.id)
        .collect();
    if core.len() == topology.cpus.len() {
        CpuSet::new()
    } else {
        core
    }
}

/// Soft limit up to the hard one.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // It runs with what it has.
    let _ = setrlimit(Resource::Nofile, limit);
}
