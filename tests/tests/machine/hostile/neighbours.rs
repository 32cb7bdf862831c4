//! All neighbours together: one who writes and reads, one who starts pods, and a SIP core that takes calls.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::load::{self, Calls};
use gantry_tests::poll;
use serde_json::json;

use super::Extent;
use super::prober::{self, Figures, Loop, NAMESPACE};
use super::starter;

/// New calls in a second.
const RATE: &str = "rate=50";
/// Calls must be up before the first case.
const FIRST_CALLS: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// How long neighbours may wait.
pub(super) struct Bars {
    /// For an answer of the API.
    pub(super) answer: Duration,
    /// For a pod to run.
    pub(super) start: Duration,
}

impl Bars {
    /// Wide in the test command, since other tests run beside it.
    pub(super) fn of(extent: Extent) -> Self {
        let (answer, start) = match extent {
            Extent::Kinds => (10, 50),
            Extent::All => (1, 5),
        };
        Self {
            answer: Duration::from_secs(answer),
            start: Duration::from_secs(start),
        }
    }
}

/// See the module.
pub(super) struct Neighbours<'a> {
    gantry: &'a Gantry,
    prober: Loop,
    starter: Loop,
}

impl<'a> Neighbours<'a> {
    /// Deploys and begins; calls are up when it returns.
    pub(super) fn start(gantry: &'a Gantry, api: &Api) -> Result<Self> {
        api.make("/api/v1/namespaces", &json!({"metadata": {"name": NAMESPACE}}))?;
        gantry.run(&["deploy", "sip-core"])?;
        gantry.run(&[
            "deploy",
            "sip-load",
            "--name",
            "load",
            "--peer",
            "pcscf=pcscf",
            "--set",
            RATE,
        ])?;
        let up = || load::calls(gantry).ok().filter(|c| c.begun >= FIRST_CALLS);
        poll(PATIENCE, up).context("no calls come up")?;
        Ok(Self {
            gantry,
            prober: prober::start(api.clone()),
            starter: starter::start(api.clone()),
        })
    }

    /// What was so far does not count.
    pub(super) fn forget(&self) {
        self.prober.take();
        self.starter.take();
    }

    /// What the API's user and the starter of pods saw since then, at least one round each.
    pub(super) fn take(&self) -> (Figures, Figures) {
        (self.prober.take_one(), self.starter.take_one())
    }

    /// All calls so far.
    pub(super) fn calls(&self) -> Result<Calls> {
        load::calls(self.gantry)
    }

    /// Ends, and says what became of all calls.
    pub(super) fn end(self, extent: Extent) -> Result<String> {
        drop((self.prober, self.starter));
        let calls = load::calls(self.gantry)?;
        ensure!(
            calls.failed == 0.0 && calls.begun > FIRST_CALLS,
            "calls of the neighbour: {calls:?}"
        );
        if extent == Extent::Kinds {
            return Ok(format!("{calls:?}"));
        }
        // The last calls are a minute long.
        let (records, exit_code) = load::finish(self.gantry)?;
        let (last, completed) = (records.last(), records.completed());
        ensure!(
            last.failed == 0 && completed == last.created && exit_code == Some(0),
            "{last:?}, completed {completed}, exit code {exit_code:?}"
        );
        Ok(format!(
            "{} calls, {} failed, {} requests sent again",
            last.created, last.failed, last.retransmissions
        ))
    }
}
