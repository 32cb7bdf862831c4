//! A neighbour who writes and reads all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use gantry_tests::api::Api;
use serde_json::json;

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(200);
/// A probe that takes longer has been harmed: wide, since other tests may run beside this one.
const PATIENCE: Duration = Duration::from_secs(10);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// See the module.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration>>,
}

impl Prober {
    /// Begins.
    pub(super) fn start(api: Api) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            loop {
                slowest = slowest.max(probe(&api)?);
                if over.load(Ordering::Relaxed) {
                    return Ok(slowest);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { stop, thread }
    }

    /// The slowest probe; an error if one was not answered as it should be.
    pub(super) fn stop(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the prober panicked"))?
    }
}

fn probe(api: &Api) -> Result<Duration> {
    let started = Instant::now();
    let path = format!("{MAPS}/probe");
    api.make(MAPS, &json!({"metadata": {"name": "probe"}, "data": {"a": "b"}}))?;
    let read = api.get(&path)?;
    ensure!(read.code == 200, "read: {} {}", read.code, read.body);
    let gone = api.ask("DELETE", &path, "", "")?;
    ensure!(gone.code == 200, "delete: {} {}", gone.code, gone.body);
    let took = started.elapsed();
    ensure!(took < PATIENCE, "a probe took {took:?}");
    Ok(took)
}
