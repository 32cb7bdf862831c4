//! A neighbour who writes, reads and deletes all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use gantry_tests::api::{Answer, Api};
use serde_json::json;

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// A round takes no longer, or it fails.
const ROUND: Duration = Duration::from_secs(150);
/// The neighbours' namespace.
pub(super) const NAMESPACE: &str = "neighbours";

/// What something that is done again and again came to, since it was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// How often.
    pub(super) rounds: u32,
    /// The longest time that one answer took.
    pub(super) slowest: Duration,
    /// The first that went wrong.
    pub(super) wrong: Option<String>,
}

/// Something that is done every second until it is dropped.
pub(super) struct Loop {
    figures: Arc<Mutex<Figures>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    /// `act` says how long its slowest part took.
    pub(super) fn start(act: impl Fn(u32) -> Result<Duration> + Send + 'static) -> Self {
        let figures = Arc::new(Mutex::new(Figures::default()));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (figures.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                let outcome = act(number);
                let mut figures = shared.lock().unwrap_or_else(PoisonError::into_inner);
                figures.rounds += 1;
                match outcome {
                    Ok(took) => figures.slowest = figures.slowest.max(took),
                    Err(error) => drop(figures.wrong.get_or_insert_with(|| format!("{error:#}"))),
                }
                drop(figures);
                number += 1;
                std::thread::sleep(PAUSE.saturating_sub(started.elapsed()));
            }
        });
        Self {
            figures,
            over,
            thread: Some(thread),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the last time, at least one round.
    pub(super) fn take_one(&self) -> Figures {
        let is_there = || (self.lock().rounds > 0).then_some(());
        gantry_tests::poll(ROUND, is_there);
        self.take()
    }

    /// Since the last time.
    pub(super) fn take(&self) -> Figures {
        std::mem::take(&mut *self.lock())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes, reads and deletes an object every second.
pub(super) fn start(api: Api) -> Loop {
    Loop::start(move |_| {
        let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let probe = format!("{maps}/probe");
        let body = json!({"metadata": {"name": "probe"}, "data": {"a": "b"}});
        let write = timed(|| api.post(&maps, &body), 201)?;
        let read = timed(|| api.get(&probe), 200)?;
        let delete = timed(|| api.ask("DELETE", &probe, "", ""), 200)?;
        Ok(write.max(read).max(delete))
    })
}

fn timed(ask: impl FnOnce() -> Result<Answer>, code: u16) -> Result<Duration> {
    let started = Instant::now();
    let answer = ask()?;
    let took = started.elapsed();
    ensure!(
        answer.code == code,
        anyhow!("{} after {took:?}: {}", answer.code, answer.body)
    );
    Ok(took)
}
