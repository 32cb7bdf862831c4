//! A neighbour who starts a pod every second.

use std::time::{Duration, Instant};

use anyhow::Context;
use gantry_tests::api::Api;
use gantry_tests::busybox::IMAGE;
use gantry_tests::poll;
use serde_json::json;

use super::prober::{Loop, NAMESPACE};

/// After so long a pod has not started.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a pod, sees it run, and takes it away.
pub(super) fn start(api: Api) -> Loop {
    Loop::start(move |number| {
        let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let name = format!("probe-{number}");
        // One that asks for nothing has what others leave, by Kubernetes' rules.
        let requests = json!({"requests": {"cpu": "100m"}});
        let container =
            json!({"name": "c", "image": IMAGE, "args": ["exec sleep 1000"], "resources": requests});
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
        let started = Instant::now();
        api.make(&pods, &json!({"metadata": {"name": name}, "spec": spec}))?;
        let pod = format!("{pods}/{name}");
        let mut last = String::new();
        let runs = poll(PATIENCE, || {
            let status = api.get(&pod).ok()?.json()["status"].take();
            last = status.to_string();
            (status["phase"] == "Running").then_some(())
        });
        let took = started.elapsed();
        api.ask("DELETE", &pod, "", "")?;
        runs.with_context(|| format!("pod {name} has not started: {last}"))?;
        let is_gone = || (api.get(&pod).ok()?.code == 404).then_some(());
        poll(PATIENCE, is_gone).with_context(|| format!("pod {name} does not go"))?;
        Ok(took)
    })
}
