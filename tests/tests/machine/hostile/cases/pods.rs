//! A tenant's own pods: made, looked at, and what is said of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gantry_tests::busybox::IMAGE;
use serde_json::{Value, json};

use super::Tenant;

/// A pod of a tenant, called `p`, of one container `c`.
pub(super) struct Pod<'a> {
    tenant: &'a Tenant<'a>,
    uid: String,
}

/// A container that runs a script of busybox' shell, with more in its description.
pub(super) fn container(script: &str, more: Value) -> Value {
    let mut container = json!({"name": "c", "image": IMAGE, "args": [script]});
    merge(&mut container, more);
    container
}

/// A pod of this container, that is given a second to end.
pub(super) fn of(container: Value) -> Value {
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    json!({"metadata": {"name": "p"}, "spec": spec})
}

/// Adds fields to an object.
pub(super) fn merge(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// Makes a pod that runs a script, and sees it begin.
pub(super) fn run<'a>(tenant: &'a Tenant<'a>, script: &str) -> Result<Pod<'a>> {
    start(tenant, &of(container(script, json!({}))))
}

/// Makes a pod and sees its first container begin.
pub(super) fn start<'a>(tenant: &'a Tenant<'a>, pod: &Value) -> Result<Pod<'a>> {
    tenant.make("pods", pod)?;
    let uid = tenant.wait("that its pod has begun", || begun(tenant, "p"))?;
    Ok(Pod { tenant, uid })
}

/// Makes a pod of which nothing may ever begin.
pub(super) fn make<'a>(tenant: &'a Tenant<'a>, pod: &Value) -> Result<Pod<'a>> {
    tenant.make("pods", pod)?;
    let uid = tenant.get("pods/p")?["metadata"]["uid"]
        .as_str()
        .map(str::to_owned);
    let uid = uid.context("the pod has no uid")?;
    Ok(Pod { tenant, uid })
}

/// The uid of a pod whose first container has begun.
pub(super) fn begun(tenant: &Tenant<'_>, name: &str) -> Option<String> {
    let pod = tenant.get(&format!("pods/{name}")).ok()?;
    let begun = pod["status"]["containerStatuses"][0]["containerID"].is_string();
    begun.then(|| pod["metadata"]["uid"].as_str().map(str::to_owned))?
}

impl Pod<'_> {
    /// The pod's status and the Events about it, as text.
    pub(super) fn said(&self) -> Result<String> {
        let pod = self.tenant.get("pods/p")?;
        let events = self
            .tenant
            .get("events?fieldSelector=involvedObject.name=p,involvedObject.kind=Pod")?;
        let events = events["items"].as_array().into_iter().flatten();
        let events: Vec<String> = events
            .map(|e| format!("{}: {}", e["reason"], e["message"]))
            .collect();
        Ok(format!("{}\n{}", pod["status"], events.join("\n")))
    }

    /// Waits until `harm` is seen, which is returned then, or this is said of the pod: then all that is said is.
    pub(super) fn told_or(&self, told: &str, mut harm: impl FnMut() -> Option<String>) -> Result<String> {
        let mut last = String::new();
        let outcome = self.tenant.wait(told, || {
            if let Some(harm) = harm() {
                return Some(harm);
            }
            last = self.said().ok()?;
            last.contains(told).then(|| last.clone())
        });
        outcome.with_context(|| last.clone())
    }

    /// What it has written.
    pub(super) fn log(&self) -> Result<String> {
        Ok(self.tenant.api.get(&self.tenant.path("pods/p/log"))?.body)
    }

    /// Its directory on the node.
    pub(super) fn dir(&self) -> PathBuf {
        self.tenant.gantry.path().join("agent/pods").join(&self.uid)
    }

    /// A file of its shim below `/proc`.
    pub(super) fn shim(&self, file: &str) -> Option<String> {
        let pid = fs::read_to_string(self.dir().join("shim.pid")).ok()?;
        let pid = pid.split_whitespace().next()?;
        fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
    }

    /// What the kernel keeps of its control group: the v1 controller, the file in cgroup v1 and in v2.
    fn group(&self, controller: &str, v1: &str, v2: &str) -> Option<String> {
        let root = Path::new("/sys/fs/cgroup");
        let own = format!("pod{}", self.uid);
        let below = |top: PathBuf, file: &str| {
            let instances = fs::read_dir(top).ok()?.flatten();
            let mut found = instances.map(|instance| instance.path().join(&own).join(file));
            fs::read_to_string(found.find(|path| path.is_file())?).ok()
        };
        below(root.join(controller).join("gantry"), v1).or_else(|| below(root.join("gantry"), v2))
    }

    /// The same where it is one number.
    fn counted(&self, controller: &str, v1: &str, v2: &str) -> Option<u64> {
        self.group(controller, v1, v2)?.trim().parse().ok()
    }

    /// Processes and threads that it has.
    pub(super) fn processes(&self) -> Option<u64> {
        self.counted("pids", "pids.current", "pids.current")
    }

    /// Memory that it has, in MiB.
    pub(super) fn memory_mib(&self) -> Option<u64> {
        let bytes = self.counted("memory", "memory.usage_in_bytes", "memory.current")?;
        Some(bytes >> 20)
    }

    /// Processor time that it has used, in nanoseconds.
    pub(super) fn cpu_ns(&self) -> Option<u64> {
        let text = self.group("cpuacct", "cpuacct.usage", "cpu.stat")?;
        let in_v2 = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        match in_v2 {
            Some(us) => us.parse::<u64>().ok()?.checked_mul(1000),
            None => text.trim().parse().ok(),
        }
    }

    /// Runs that are over.
    pub(super) fn restarts(&self) -> Option<u64> {
        let pod = self.tenant.get("pods/p").ok()?;
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64()
    }
}
