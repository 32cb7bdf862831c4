//! `gantry server`: the control plane in the foreground; `gantry up` starts it.

use anyhow::{Context, Result};
use gantry_orchestrator::server::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::args::{Global, ServerArgs};
use crate::guard;

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &ServerArgs, global: &Global) -> Result<()> {
    gantry_log::start(args.log_file.as_deref());
    open_files()?;
    give_memory_back();
    let data_dir = global.data_dir();
    data_dir.create()?;
    let config = ServerConfig {
        data_dir: data_dir.path().to_owned(),
        listen: args.listen,
        names: Vec::new(),
        pod_cidr: args.pod_cidr,
        service_cidr: args.service_cidr,
        cluster_domain: "cluster.local".to_owned(),
        cluster: args.cluster.clone(),
        limits: guard::limits(),
        core_limits: guard::core_limits(),
        renderer: guard::renderer(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(cancel_on_signal(stop.clone()));
        gantry_orchestrator::controllers::run(config, stop)
            .await
            .context("the control plane stopped")
    })
}

/// What was large goes back to the kernel when it is free, and threads share what is small: by itself the C library keeps
/// hundreds of MiB of what lists and large objects once took (mallopt(3)).
fn give_memory_back() {
    use nix::libc;
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes numbers only, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// As many open files as may be: connections are some thousands, and what they take must not be missing elsewhere.
fn open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).context("cannot raise the limit of open files to its hard limit")
}

async fn cancel_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    // Cancel-safe: both wait for a signal and hold nothing else.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
}
