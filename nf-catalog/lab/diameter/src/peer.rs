//! Another node, as long as a connection to it stands: requests to it, and the answers that wait for theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::Message;

/// How long an answer may take: as the CSCFs wait (their TransactionTimeout).
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No peer is there that it could go to.
    #[error("no Diameter peer is connected that the request could go to")]
    NoPeer,
    /// The connection ended before it was answered.
    #[error("the Diameter peer went away before it answered")]
    Gone,
    /// Nothing came.
    #[error("the Diameter peer did not answer within 5 s")]
    Silent,
}

/// A connected node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    host: String,
    realm: String,
    out: mpsc::Sender<Message>,
    /// By hop-by-hop number; `None` once the connection has ended.
    waiting: Mutex<Option<HashMap<u32, oneshot::Sender<Message>>>>,
    last_number: AtomicU32,
}

impl Peer {
    pub(crate) fn new(host: &str, realm: &str, out: mpsc::Sender<Message>) -> Self {
        Self(Arc::new(Shared {
            host: host.to_owned(),
            realm: realm.to_owned(),
            out,
            waiting: Mutex::new(Some(HashMap::new())),
            last_number: AtomicU32::new(rand::random()),
        }))
    }

    /// Its DiameterIdentity.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Its realm.
    pub fn realm(&self) -> &str {
        &self.0.realm
    }

    /// Sends a request, under numbers of this connection, and waits for its answer.
    pub async fn request(&self, mut request: Message) -> Result<Message, RequestError> {
        let number = self.next_number();
        request.header.hop_by_hop = number;
        request.header.end_to_end = number;
        let (answered, answer) = oneshot::channel();
        self.waiting()
            .as_mut()
            .ok_or(RequestError::Gone)?
            .insert(number, answered);
        let asked = async {
            self.0.out.send(request).await.map_err(|_| RequestError::Gone)?;
            answer.await.map_err(|_| RequestError::Gone)
        };
        let result = tokio::time::timeout(PATIENCE, asked).await;
        if let Some(waiting) = self.waiting().as_mut() {
            waiting.remove(&number);
        }
        result.unwrap_or(Err(RequestError::Silent))
    }

    /// Sends what nobody waits for: an answer, or the connection's last word.
    pub(crate) async fn send(&self, message: Message) {
        // A connection that has ended needs nothing any more.
        let _ = self.0.out.send(message).await;
    }

    /// Sends what may be left out where the peer does not read.
    pub(crate) fn try_send(&self, message: Message) {
        let _ = self.0.out.try_send(message);
    }

    /// The very same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn next_number(&self) -> u32 {
        self.0.last_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands an answer to whoever waits for it; one that came too late is dropped.
    pub(crate) fn answered(&self, answer: Message) {
        let waiter = (self.waiting().as_mut()).and_then(|w| w.remove(&answer.header.hop_by_hop));
        if let Some(waiter) = waiter {
            let _ = waiter.send(answer);
        }
    }

    /// The connection has ended: nobody waits any longer.
    pub(crate) fn end(&self) {
        self.waiting().take();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u32, oneshot::Sender<Message>>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
