//! A tenant with a namespace of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gantry_tests::api::{Answer, Api};
use gantry_tests::gantry::Gantry;
use serde_json::{Value, json};

use super::Extent;

/// How long a tenant waits to be told something.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long what a tenant made may take to go.
const GOING: Duration = Duration::from_secs(300);

/// See the module. Dropping it takes nothing away: see [`Tenant::leave`].
pub(super) struct Tenant<'a> {
    /// The API, as a user of its own.
    pub(super) api: Api,
    /// The Gantry that it shares with others.
    pub(super) gantry: &'a Gantry,
    /// Its namespace.
    pub(super) namespace: String,
    extent: Extent,
    /// Objects outside the namespace.
    outside: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl<'a> Tenant<'a> {
    /// One with a new namespace.
    pub(super) fn new(gantry: &'a Gantry, api: &Api, namespace: String, extent: Extent) -> Result<Self> {
        api.make("/api/v1/namespaces", &json!({"metadata": {"name": namespace}}))?;
        Ok(Self {
            api: Api::of_user(gantry, &namespace)?,
            gantry,
            namespace,
            extent,
            outside: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    /// How many: few in the test command, many by hand.
    pub(super) fn size(&self, few: usize, many: usize) -> usize {
        match self.extent {
            Extent::Kinds => few,
            Extent::All => many,
        }
    }

    /// The URL of its objects: `configmaps`, `apps/v1/deployments/name`.
    pub(super) fn path(&self, resource: &str) -> String {
        let namespace = &self.namespace;
        match resource.splitn(3, '/').collect::<Vec<_>>()[..] {
            [group, version, rest] if version.starts_with('v') => {
                format!("/apis/{group}/{version}/namespaces/{namespace}/{rest}")
            }
            _ => format!("/api/v1/namespaces/{namespace}/{resource}"),
        }
    }

    /// Asks to make an object; what is answered counts.
    pub(super) fn post(&self, resource: &str, object: &Value) -> Result<Answer> {
        self.api.post(&self.path(resource), object)
    }

    /// Makes an object that must be taken.
    pub(super) fn make(&self, resource: &str, object: &Value) -> Result<()> {
        self.api.make(&self.path(resource), object)
    }

    /// Makes an object that is in no namespace.
    pub(super) fn make_outside(&self, collection: &str, object: &Value) -> Result<()> {
        self.api.make(collection, object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.push(format!("{collection}/{name}"));
        Ok(())
    }

    /// An object as it is, `Null` without one.
    pub(super) fn get(&self, resource: &str) -> Result<Value> {
        Ok(self.api.get(&self.path(resource))?.json())
    }

    /// Waits to be told something; `what` names it where it never comes.
    pub(super) fn wait<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && !self.over.load(Ordering::Relaxed) {
            if let Some(found) = found() {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the tenant is not told: {what}")
    }

    /// Waits for an object's conditions to say this, and returns all of them as text.
    pub(super) fn condition(&self, resource: &str, says: &str) -> Result<String> {
        let conditions = || {
            let object = self.get(resource).ok()?;
            let conditions = object["status"]["conditions"].to_string();
            conditions.contains(says).then_some(conditions)
        };
        self.wait(&format!("a condition of {resource} with {says}"), conditions)
    }

    /// Nobody waits any more.
    pub(super) fn stop_waiting(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Takes away all that it made, and waits until it is gone.
    pub(super) fn leave(self) -> Result<()> {
        let mut going = self.outside.into_inner().unwrap_or_else(PoisonError::into_inner);
        going.push(format!("/api/v1/namespaces/{}", self.namespace));
        for path in &going {
            self.api.ask("DELETE", path, "", "")?;
        }
        for path in &going {
            let is_gone = || (self.api.get(path).ok()?.code == 404).then_some(());
            gantry_tests::poll(GOING, is_gone).with_context(|| format!("{path} does not go"))?;
        }
        Ok(())
    }
}
