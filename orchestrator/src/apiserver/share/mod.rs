//! One client's share of the server: requests take a seat before they work, and seats go round ([`turns`]). So a loop of big
//! lists has a share and no more. Nodes' streams and the orchestrator's own work never come here.

mod arriving;
mod books;
mod turns;
mod unread;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::HttpBody;
use axum::response::{IntoResponse, Response};
use http::Extensions;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::held;
use super::limits::{Limits, ShareLimits};
use crate::store::Revision;
pub(super) use arriving::{Arrivals, Arriving};
use turns::{Asked, Turns};
pub(super) use unread::{Reading, Unread};

/// Seconds after which a client that was sent away may come again.
const RETRY_S: u32 = 1;
/// An answer that is being read keeps its seat for so long; then a slow reader pays with its own time.
const READING: Duration = Duration::from_secs(1);

/// Whose request it is; put into its extensions by the listener.
#[derive(Clone)]
pub struct Client {
    /// The certificate's user.
    pub user: String,
    /// Number of the connection.
    pub connection: u64,
    /// Closes the connection.
    pub(super) end: CancellationToken,
    /// Answers that wait to be read.
    pub(super) unread: Unread,
}

impl Client {
    /// Of a request. Without a listener (never in a server) all are one.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let unread = || Unread::new(Limits::default().connections.unread);
        let nobody = || Self::new(String::new(), 0, unread());
        extensions.get().cloned().unwrap_or_else(nobody)
    }

    /// A connection.
    pub(super) fn new(user: String, connection: u64, unread: Unread) -> Self {
        Self {
            user,
            connection,
            end: CancellationToken::new(),
            unread,
        }
    }

    /// An answer of so many bytes, and the store's objects in it, waits to be read, until what is returned is dropped. 429 when there
    /// are too many already.
    pub(super) fn reading(
        &self,
        bytes: usize,
        objects: Option<(Revision, usize)>,
    ) -> Result<Reading, ApiError> {
        self.unread
            .begin(self, bytes, objects)
            .ok_or_else(too_much_unread)
    }

    /// Whether there is room for one more answer.
    pub(super) fn may_ask(&self) -> Result<(), ApiError> {
        self.unread.make_room(&self.user, 0).ok_or_else(too_much_unread)
    }

    /// A response whose body is there as a whole waits to be read; who makes another in pieces counts it on its own. What has
    /// been done is never answered by a refusal.
    pub(super) fn reads(&self, response: Response, done: bool) -> Response {
        let Some(bytes) = response.body().size_hint().exact() else {
            return response;
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let reading = match done {
            true => Ok(self.unread.add(self, bytes, None)),
            false => self.reading(bytes, None),
        };
        match reading {
            Ok(reading) => held::keep(response, reading),
            Err(error) => error.into_response(),
        }
    }
}

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// One object, a page.
    Light,
    /// Many objects, or a plan.
    Heavy,
}

type Line = Arc<Mutex<Turns<oneshot::Sender<Seat>>>>;

/// A request's seat; free again when dropped.
pub(super) struct Seat {
    /// `None` once it has been passed on.
    line: Option<Line>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        loop {
            let next = line.lock().unwrap_or_else(PoisonError::into_inner).leave();
            let Some(next) = next else { return };
            let seat = Self {
                line: Some(line.clone()),
            };
            match next.send(seat) {
                Ok(()) => return,
                // It went away: the seat goes to the one after it.
                Err(mut seat) => seat.line = None,
            }
        }
    }
}

impl Seat {
    /// Keeps the seat while the answer is read, but not for long. The value that holds it.
    pub fn while_read(self) -> impl Send + Sync + 'static {
        let (end, ended) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(READING, ended).await;
            drop(self);
        });
        end
    }
}

/// How many each user has.
pub(super) type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// Counts something of a user; one less when dropped.
pub(super) struct Counted {
    counts: Counts,
    user: String,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

/// The seats. Cheap to clone.
#[derive(Clone)]
pub struct Share {
    limits: ShareLimits,
    light: Line,
    heavy: Line,
    streams: Counts,
    sessions: Counts,
    /// Under one name.
    all_sessions: Counts,
    /// Under the names of node and user.
    node_sessions: Counts,
}

impl Share {
    /// Seats as the limits say.
    pub fn new(limits: ShareLimits) -> Self {
        let line = |seats| {
            let turns = Turns::new(seats, limits.waiting, limits.waiting_total);
            Arc::new(Mutex::new(turns))
        };
        Self {
            limits,
            light: line(limits.seats),
            heavy: line(limits.heavy_seats),
            streams: Arc::default(),
            sessions: Arc::default(),
            all_sessions: Arc::default(),
            node_sessions: Arc::default(),
        }
    }

    /// A seat, when it is the client's turn. 429 when too many wait, or for too long.
    pub(super) async fn enter(&self, cost: Cost, client: &Client) -> Result<Seat, ApiError> {
        let line = match cost {
            Cost::Light => &self.light,
            Cost::Heavy => &self.heavy,
        };
        let (waiter, turn) = oneshot::channel();
        let asked = {
            let mut turns = line.lock().unwrap_or_else(PoisonError::into_inner);
            let mut waiter = Some(waiter);
            let mut ask = |turns: &mut Turns<_>| turns.ask(client, || waiter.take().expect("asked for once"));
            match ask(&mut turns) {
                Asked::Full => {
                    turns.retain(|waiter| !waiter.is_closed());
                    ask(&mut turns)
                }
                asked => asked,
            }
        };
        match asked {
            Asked::Seat => Ok(Seat {
                line: Some(line.clone()),
            }),
            Asked::Full => Err(busy("too many requests of this client wait already")),
            Asked::Waits => match tokio::time::timeout(self.limits.wait, turn).await {
                Ok(Ok(seat)) => Ok(seat),
                _ => Err(busy("the server is busy with other requests")),
            },
        }
    }

    /// Counts a watch or a log that is followed. 429 if the user has too many.
    pub(super) fn stream(&self, client: &Client) -> Result<Counted, ApiError> {
        count(&self.streams, &client.user, self.limits.streams)
            .ok_or_else(|| busy("too many watches and logs are open: end some"))
    }

    /// Counts a command in a container, an attached client, or one that forwards ports. 429 if the user, or all, have too many.
    pub(super) fn session(&self, client: &Client) -> Result<[Counted; 2], ApiError> {
        let own = count(&self.sessions, &client.user, self.limits.sessions).ok_or_else(|| {
            busy("too many of your exec, attach and port-forward sessions are open: end some")
        })?;
        let all = count(&self.all_sessions, "", self.limits.sessions_total)
            .ok_or_else(|| busy("too many exec, attach and port-forward sessions are open"))?;
        Ok([own, all])
    }

    /// Counts what is open with one node: logs, commands, forwarded connections. 429 if the user has too many there.
    pub(super) fn on_node(&self, client: &Client, node: &str) -> Result<Counted, ApiError> {
        let key = format!("{node}/{}", client.user);
        let busy_there = || {
            busy(&format!(
                "too many of your logs, commands and forwarded ports are open on node {node}: end some"
            ))
        };
        count(&self.node_sessions, &key, self.limits.sessions_on_node).ok_or_else(busy_there)
    }
}

/// One more of the user's, unless that is too many.
pub(super) fn count(counts: &Counts, user: &str, most: usize) -> Option<Counted> {
    let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let of_user = all.entry(user.to_owned()).or_default();
    if *of_user >= most {
        return None;
    }
    *of_user += 1;
    Some(Counted {
        counts: counts.clone(),
        user: user.to_owned(),
    })
}

fn too_much_unread() -> ApiError {
    busy("too many answers of this client wait to be read")
}

fn busy(why: &str) -> ApiError {
    ApiError {
        retry_after_s: Some(RETRY_S),
        ..ApiError::too_many_requests(format!("{why}, please try again later"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(seats: usize, wait_ms: u64) -> Share {
        Share::new(ShareLimits {
            seats,
            waiting: 2,
            wait: Duration::from_millis(wait_ms),
            streams: 1,
            ..Limits::default().share
        })
    }

    fn of(user: &str, connection: u64) -> Client {
        Client::new(
            user.to_owned(),
            connection,
            Unread::new(Limits::default().connections.unread),
        )
    }

    fn client(connection: u64) -> Client {
        of("u", connection)
    }

    #[tokio::test]
    async fn a_seat_goes_on_and_nobody_waits_for_ever() {
        let share = share(1, 50);
        let first = share.enter(Cost::Light, &client(1)).await.unwrap();
        let late = share.enter(Cost::Light, &client(2)).await.err().unwrap();
        assert_eq!((late.code.as_u16(), late.retry_after_s), (429, Some(1)));
        let waits = tokio::spawn({
            let share = share.clone();
            async move { share.enter(Cost::Light, &client(2)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        // The one that gave up is passed over.
        drop(first);
        assert!(waits.await.unwrap());
        assert!(share.enter(Cost::Light, &client(3)).await.is_ok());
    }

    #[tokio::test]
    async fn those_who_gave_up_leave_their_places() {
        let share = share(0, 1);
        for _ in 0..10 {
            let error = share.enter(Cost::Light, &client(1)).await.err().unwrap();
            assert!(error.message.contains("busy"), "{error}");
        }
    }

    #[test]
    fn streams_are_counted() {
        let share = share(1, 1);
        let open = share.stream(&client(1)).ok();
        assert!(open.is_some() && share.stream(&client(2)).is_err());
        drop(open);
        assert!(share.stream(&client(2)).is_ok());
    }

    #[test]
    fn sessions_are_counted_for_the_user_and_for_all() {
        let share = Share::new(ShareLimits {
            sessions: 2,
            sessions_total: 3,
            sessions_on_node: 1,
            ..Limits::default().share
        });
        let of = |user: &str| of(user, 1);
        let mut open = vec![share.session(&of("a")).unwrap(), share.session(&of("a")).unwrap()];
        assert!(share.session(&of("a")).is_err());
        open.push(share.session(&of("b")).unwrap());
        assert!(share.session(&of("b")).is_err(), "of all");
        open.remove(0);
        assert!(share.session(&of("b")).is_ok());
        let on_node = share.on_node(&of("a"), "n").ok();
        assert!(on_node.is_some() && share.on_node(&of("a"), "n").is_err());
        assert!(share.on_node(&of("b"), "n").is_ok() && share.on_node(&of("a"), "m").is_ok());
    }
}
