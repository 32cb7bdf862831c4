//! The thin shell around the pure core: one task that watches the store and the agents, and carries out what the core says.
//!
//! A pass is one transaction: the plan, the objects and the nodes' configurations are written together or not at all. A
//! conflict drops the pass; the next one sees fresh state.

mod cache;
mod events;
mod keys;
mod pass;
mod planning;
mod renderings;
mod said;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::{Limits, Settings, World};
use crate::link::{LinkEvent, LinkHandle};
use crate::renderer::Renderer;
use crate::store::{Store, StoreError, Watch};

use cache::Cache;
pub(crate) use keys::CONFIGS;
pub use planning::{Planner, PlanningError};

/// Time goes into decisions at least so often.
const TICK: Duration = Duration::from_secs(1);
/// Passes in a row that all found something to do, after which the shell takes a breath.
const BUSY_PASSES: u32 = 50;

/// Why the shell cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The store failed.
    #[error("read the orchestrator's state from the store")]
    Store(#[from] StoreError),
    /// The store holds something unreadable where the plan should be: without it nobody knows whose CPUs are whose.
    #[error(
        "{key} in the store is not readable: start the version of Gantry that wrote it, or restore a backup (pods run on meanwhile)"
    )]
    Corrupt {
        /// Where.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The world as the shell last saw it, shared with whoever answers questions about it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the core over the store and the agents.
pub struct Shell {
    store: Arc<dyn Store>,
    link: LinkHandle,
    link_events: mpsc::Receiver<LinkEvent>,
    cache: Cache,
    watch: Box<dyn Watch>,
    world: Shared,
    recorder: events::Recorder,
    said: said::Said,
    renderer: Renderer,
    renderings: renderings::Renderings,
}

impl Shell {
    /// Reads everything from the store, and gives the link what the nodes were last told.
    pub async fn open(
        store: Arc<dyn Store>,
        link: LinkHandle,
        link_events: mpsc::Receiver<LinkEvent>,
        settings: Settings,
        renderer: Renderer,
    ) -> Result<Self, ShellError> {
        let mut world = World::new(settings);
        let (cache, watch) = Cache::open(&*store, &mut world).await?;
        for node in world.objects.nodes.keys() {
            world.agents.expect(&node.name, now_ms());
        }
        // One without a network is only a number: see `cache::lost_config`.
        for (node, config) in world.configs.iter().filter(|(_, c)| c.network.is_some()) {
            link.send_config(node, (**config).clone());
        }
        let recorder = events::Recorder::open(&*store).await?;
        Ok(Self {
            recorder,
            store,
            link,
            link_events,
            cache,
            watch,
            world: Shared(Arc::new(Mutex::new(world))),
            said: said::Said::default(),
            renderings: renderings::Renderings::new(renderer.clone()),
            renderer,
        })
    }

    /// With other bounds.
    pub fn with_limits(self, limits: Limits) -> Self {
        self.world.lock().limits = limits;
        self
    }

    /// Answers what-if questions over the same world.
    pub fn planner(&self) -> Planner {
        Planner::new(self.world.clone(), self.renderer.clone())
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ShellError> {
        // Beside the loop: however many Events there are, nothing waits for them.
        let with_us = stop.child_token();
        let kept = self.world.lock().limits.events_in_namespace;
        let expiry = tokio::spawn(events::expire(self.store.clone(), kept, now_ms, with_us.clone()));
        let end = self.decide(stop).await;
        with_us.cancel();
        if let Err(error) = expiry.await {
            tracing::error!(%error, "the removal of old events failed");
        }
        end
    }

    async fn decide(&mut self, stop: CancellationToken) -> Result<(), ShellError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // All arms are cancel-safe: a receiver and a store's watch lose nothing, a tick is only a tick.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => {}
                Some(event) = self.link_events.recv() => self.link_event(event),
                Some(ended) = self.renderings.ended() => self.renderings.take(ended, &mut self.world.lock()),
                batch = self.watch.next() => match batch {
                    Ok(batch) => if !self.cache.apply(&batch.events, &mut self.world.lock()) { continue },
                    Err(StoreError::Compacted { .. }) => self.reload().await?,
                    Err(error) => return Err(error.into()),
                },
            }
            while let Ok(event) = self.link_events.try_recv() {
                self.link_event(event);
            }
            self.settle(&stop).await;
        }
    }

    /// Passes until there is nothing to do.
    async fn settle(&mut self, stop: &CancellationToken) {
        for passes in 1.. {
            if !self.pass().await || stop.is_cancelled() {
                return;
            }
            if passes % BUSY_PASSES == 0 {
                tracing::warn!(passes, "the state does not come to rest");
                return;
            }
        }
    }

    /// Decides once over what is known; true if something was written. Before anybody can ask, it takes back what was said of
    /// agents that were here when the orchestrator ended.
    pub async fn pass(&mut self) -> bool {
        let (store, link) = (&*self.store, &self.link);
        let (cache, recorder, said) = (&mut self.cache, &mut self.recorder, &mut self.said);
        let passed = pass::run(store, link, cache, &self.world, recorder, said, now_ms()).await;
        self.renderings.want(passed.renderings);
        passed.wrote
    }

    /// The watch was too slow for the store's history: everything anew.
    async fn reload(&mut self) -> Result<(), ShellError> {
        let mut fresh = {
            let world = self.world.lock();
            let mut fresh = World::new(world.settings.clone());
            fresh.agents = world.agents.clone();
            fresh.limits = world.limits;
            fresh.rendered = world.rendered.clone();
            fresh
        };
        (self.cache, self.watch) = Cache::open(&*self.store, &mut fresh).await?;
        *self.world.lock() = fresh;
        Ok(())
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now_ms = now_ms();
        let agents = &mut self.world.lock().agents;
        match event {
            LinkEvent::Connected(hello) => {
                tracing::info!(
                    node = hello.node,
                    generation = hello.generation.0,
                    "agent connected"
                );
                agents.connected(*hello, now_ms);
            }
            LinkEvent::Status(node, status) => agents.reported(&node, *status, now_ms),
            LinkEvent::Refused(node, refused) => {
                tracing::error!(
                    node,
                    generation = refused.generation.0,
                    reason = refused.reason,
                    "agent refused a configuration"
                );
                agents.refused(&node, refused.generation, &refused.reason);
            }
            LinkEvent::Disconnected(node) => {
                tracing::warn!(node, "agent disconnected; its pods go on");
                agents.disconnected(&node, now_ms);
            }
        }
    }
}

/// Milliseconds since the Unix epoch: the wall clock at the first call, then the monotonic one. A clock that is set neither
/// cuts a drain's quiet time short nor makes it wait.
fn now_ms() -> u64 {
    static START: OnceLock<(SystemTime, Instant)> = OnceLock::new();
    let (wall, monotonic) = START.get_or_init(|| (SystemTime::now(), Instant::now()));
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default() + monotonic.elapsed();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
