//! A watcher's cursor over the shared history.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::watch;

use super::history::{History, Limits};
use super::types::{Revision, StoreError, WatchBatch};

/// Handed out at once: what a watcher holds while its client does not read, beside one change however large.
const BATCH: Limits = Limits {
    events: 256,
    bytes: 1 << 20,
};

/// A cursor: nothing is queued for it, it reads the history at its own speed.
pub(super) struct Cursor {
    pub history: Arc<RwLock<History>>,
    pub moved: watch::Receiver<Revision>,
    pub prefix: String,
    pub after: Revision,
}

#[async_trait]
impl super::Watch for Cursor {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        self.moved
            .wait_for(|newest| *newest > self.after)
            .await
            .map_err(|_| StoreError::Closed)?;
        let (events, through) = self
            .history
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .events(&self.prefix, self.after, BATCH)?;
        self.after = through;
        Ok(WatchBatch { events, through })
    }
}
