//! S11 on a socket: requests and their answers, and what an SGW asks by itself.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gantry_lab_gtp::{MAX_MESSAGE_BYTES, Message, kind, s11};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::transactions::{Counts, Limits, Transactions};

/// Requests on their way to the socket's task.
const ASKED: usize = 1024;
/// Requests of SGWs that wait; those beyond are not answered, and come again.
const HEARD: usize = 1024;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nothing came, however often it was sent.
    #[error("the SGW does not answer")]
    Silent,
    /// More is asked than may be sent.
    #[error("too many requests wait for the SGW")]
    Congested,
}

type Waiter = oneshot::Sender<Result<Message, AskError>>;
type Ask = (SocketAddrV4, Message, Waiter);

/// Asks SGWs. Cheap to clone.
#[derive(Clone)]
pub struct S11 {
    asks: mpsc::Sender<Ask>,
    counts: Arc<Mutex<Counts>>,
}

impl S11 {
    /// Sends a request when its turn has come, and waits for the answer.
    pub async fn ask(&self, to: SocketAddrV4, request: Message) -> Result<Message, AskError> {
        let (waiter, answer) = oneshot::channel();
        self.asks
            .try_send((to, request, waiter))
            .map_err(|_| AskError::Congested)?;
        answer.await.unwrap_or(Err(AskError::Silent))
    }

    /// What happened.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket's task.
pub struct Task {
    socket: Arc<UdpSocket>,
    transactions: Transactions<Waiter>,
    asks: mpsc::Receiver<Ask>,
    heard: mpsc::Sender<(SocketAddrV4, Message)>,
    counts: Arc<Mutex<Counts>>,
    restarts: u8,
}

/// S11 on this socket: what asks, what SGWs ask, and the task that moves both. `number` differs from start to start.
pub fn new(
    socket: Arc<UdpSocket>,
    limits: Limits,
    number: u32,
) -> (S11, mpsc::Receiver<(SocketAddrV4, Message)>, Task) {
    let (ask, asks) = mpsc::channel(ASKED);
    let (heard, requests) = mpsc::channel(HEARD);
    let counts = Arc::<Mutex<Counts>>::default();
    let task = Task {
        socket,
        transactions: Transactions::new(limits, number),
        asks,
        heard,
        counts: counts.clone(),
        restarts: number.to_le_bytes()[0],
    };
    (S11 { asks: ask, counts }, requests, task)
}

impl Task {
    /// Moves datagrams until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        let mut datagram = vec![0; MAX_MESSAGE_BYTES + 1];
        loop {
            let due = self.transactions.due(Instant::now());
            for (to, bytes) in due.send {
                // What cannot be sent is lost, as on any network: it is sent again.
                let _ = self.socket.send_to(&bytes, to).await;
            }
            for waiter in due.unanswered {
                let _ = waiter.send(Err(AskError::Silent));
            }
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.transactions.counts();
            let wake = self.transactions.wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: a datagram that was not received waits in the kernel, a request in its channel, and time passes anyway.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some((to, request, waiter)) = self.asks.recv() => {
                    if let Err(waiter) = self.transactions.ask(to, request, waiter) {
                        let _ = waiter.send(Err(AskError::Congested));
                    }
                }
                received = self.socket.recv_from(&mut datagram) => {
                    // An error tells that an earlier datagram found nobody: the request is sent again, or given up.
                    if let Ok((length, SocketAddr::V4(from))) = received {
                        self.datagram(from, &datagram[..length]).await;
                    }
                }
                () = sleep => {}
            }
        }
    }

    async fn datagram(&mut self, from: SocketAddrV4, bytes: &[u8]) {
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%from, %error, "not taken");
                return;
            }
        };
        match message.kind {
            kind::ECHO_REQUEST => {
                let answer = s11::echo_response(&message, self.restarts);
                let _ = self.socket.send_to(&answer.encode(), from).await;
            }
            kind::DOWNLINK_DATA_NOTIFICATION | kind::CREATE_BEARER_REQUEST => {
                let _ = self.heard.try_send((from, message));
            }
            _ => {
                if let Some(waiter) = self.transactions.answered(from, &message) {
                    let _ = waiter.send(Ok(message));
                }
            }
        }
    }
}
