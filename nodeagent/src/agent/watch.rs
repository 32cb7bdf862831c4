//! Listens to shims: one small thread a pod, blocked on its socket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::pods::run_of;
use crate::core::Event;
use crate::runtime::{Events, EventsCloser, PodDir, RuntimeError, ShimHandle};

const STACK_BYTES: usize = 128 << 10;
/// Between two attempts to listen to a shim that does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// The shims that are listened to.
#[derive(Clone)]
pub(super) struct Watches {
    events: Sender<Event>,
    open: Arc<Mutex<BTreeMap<String, Watch>>>,
}

struct Watch {
    wanted: Arc<AtomicBool>,
    _closer: EventsCloser,
}

impl Watches {
    pub(super) fn new(events: Sender<Event>) -> Self {
        Self {
            events,
            open: Arc::default(),
        }
    }

    /// Listens to a pod's shim from now on. What listened before does so no more.
    pub(super) fn watch(&self, uid: &str, dir: &PodDir) -> Result<(), RuntimeError> {
        let events = ShimHandle::connect(dir)?.events()?;
        let failed = |source| RuntimeError::Io {
            operation: "listen to",
            path: dir.path().to_owned(),
            source,
        };
        let closer = events.closer().map_err(failed)?;
        let wanted = Arc::new(AtomicBool::new(true));
        let thread = std::thread::Builder::new()
            .name("shim-events".to_owned())
            .stack_size(STACK_BYTES);
        let (sender, flag, uid_owned) = (self.events.clone(), wanted.clone(), uid.to_owned());
        thread
            .spawn(move || listen(events, &sender, &flag, uid_owned))
            .map_err(failed)?;
        self.forget(uid);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(
            uid.to_owned(),
            Watch {
                wanted,
                _closer: closer,
            },
        );
        Ok(())
    }

    /// Listens from now on, or as soon as the shim answers; the core is told if it turns out to be dead.
    pub(super) fn keep_trying(&self, uid: &str, dir: &PodDir) {
        let (watches, uid, dir) = (self.clone(), uid.to_owned(), dir.clone());
        let attempt = move || {
            while let Err(error) = watches.watch(&uid, &dir) {
                tracing::debug!(pod = %uid, %error, "cannot listen to the shim");
                if matches!(error, RuntimeError::ShimGone { .. }) {
                    return watches.gone(&uid, &error);
                }
                std::thread::sleep(RETRY);
            }
        };
        std::thread::spawn(attempt);
    }

    /// Listens no more.
    pub(super) fn forget(&self, uid: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = open.remove(uid) {
            watch.wanted.store(false, Ordering::SeqCst);
        }
    }

    /// A call to the shim has failed: if it is gone, the core is told.
    pub(super) fn gone(&self, uid: &str, error: &RuntimeError) {
        if matches!(error, RuntimeError::ShimGone { .. }) {
            // Fails only when the agent ends.
            let _ = self.events.blocking_send(Event::ShimGone { uid: uid.to_owned() });
        }
    }
}

fn listen(mut events: Events, sender: &Sender<Event>, wanted: &AtomicBool, uid: String) {
    loop {
        let event = match events.wait() {
            Ok(state) => Event::Container {
                uid: uid.clone(),
                container: state.name.clone(),
                run: run_of(&state),
            },
            Err(error) => {
                tracing::debug!(pod = %uid, %error, "the shim speaks no more");
                Event::ShimGone { uid: uid.clone() }
            }
        };
        let last = matches!(event, Event::ShimGone { .. });
        if !wanted.load(Ordering::SeqCst) || sender.blocking_send(event).is_err() || last {
            return;
        }
    }
}
