//! Requests that arrive: head and body are in memory until the request is answered. A user has a share of the room, however
//! many connections and streams it comes by; where there is no room for another, whoever has most gives some back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Extensions, HeaderMap};
use tokio_util::sync::CancellationToken;

use super::super::error::ApiError;
use super::super::limits::{ArrivingLimits, Limits};
use super::books::{Account, Books};
use super::busy;

/// What a request takes beside its head and body: its stream and its task.
const EACH_BYTES: usize = 8 << 10;
/// What a header takes beside its text.
const HEADER_BYTES: usize = 128;

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct Arrivals {
    limits: ArrivingLimits,
    books: Arc<Mutex<Books<Request>>>,
}

/// One of them; its room is free again when it is dropped. Put into the request's extensions by the listener.
pub struct Arriving {
    arrivals: Arrivals,
    user: String,
    number: u64,
    pushed_out: CancellationToken,
}

/// Pushes it out; `None` once it is in work.
type Request = Option<CancellationToken>;

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrivals.lock().remove(&self.user, self.number);
    }
}

impl Arrivals {
    pub fn new(limits: ArrivingLimits) -> Self {
        Self {
            limits,
            books: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books<Request>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request whose head is there. 429 without room.
    pub fn begin(&self, user: &str, headers: &HeaderMap) -> Result<Arriving, ApiError> {
        let text: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let bytes = EACH_BYTES + headers.len() * HEADER_BYTES + text;
        let mut books = self.lock();
        make_room(&mut books, user, bytes, &self.limits)?;
        let pushed_out = CancellationToken::new();
        let number = books.add(user, bytes, Some(pushed_out.clone()));
        Ok(Arriving {
            arrivals: self.clone(),
            user: user.to_owned(),
            number,
            pushed_out,
        })
    }
}

impl Arriving {
    /// Of a request. Without a listener (never in a server) it is the only one.
    pub fn of(extensions: &Extensions) -> Result<Arc<Self>, ApiError> {
        if let Some(arriving) = extensions.get::<Arc<Self>>() {
            return Ok(arriving.clone());
        }
        let alone = Arrivals::new(Limits::default().connections.arriving);
        alone.begin("", &HeaderMap::new()).map(Arc::new)
    }

    /// So much more of it is kept. 429 without room.
    pub fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        let mut books = self.arrivals.lock();
        make_room(&mut books, &self.user, bytes, &self.arrivals.limits)?;
        books.grow(&self.user, self.number, bytes).ok_or_else(pushed_out)
    }

    /// Returns when others need its room.
    pub async fn pushed_out(&self) -> ApiError {
        self.pushed_out.cancelled().await;
        pushed_out()
    }

    /// It is in work now, and keeps its room to its end.
    pub fn settle(&self) {
        let mut books = self.arrivals.lock();
        if let Some(request) = books.entry(&self.user, self.number) {
            *request = None;
        }
    }
}

fn pushed_out() -> ApiError {
    busy("others need the room of this request, and its user has most")
}

/// Room for so much more of this user's: within its own share, and if need be taken from whoever has most.
fn make_room(
    books: &mut Books<Request>,
    user: &str,
    bytes: usize,
    limits: &ArrivingLimits,
) -> Result<(), ApiError> {
    let own = books.bytes_of(user).saturating_add(bytes);
    if own > limits.per_user_bytes {
        return Err(busy("too much of this client's requests is under way"));
    }
    while books.bytes().saturating_add(bytes) > limits.total_bytes {
        let (most, number) = pushable(books, own).ok_or_else(|| busy("too many requests are under way"))?;
        if let Some(Some(push_out)) = books.remove(&most, number) {
            push_out.cancel();
        }
    }
    Ok(())
}

/// The largest request that is not in work yet, of whoever has most and more than so much.
fn pushable(books: &Books<Request>, more_than: usize) -> Option<(String, u64)> {
    let largest = |account: &Account<Request>| {
        let pushable = account.entries.iter().filter(|(_, r)| r.what.is_some());
        pushable.max_by_key(|(_, r)| r.bytes).map(|(number, _)| *number)
    };
    let users = books.users().iter().filter(|(_, u)| u.bytes > more_than);
    let users = users.filter_map(|(name, u)| Some((u.bytes, name, largest(u)?)));
    let (_, name, number) = users.max_by_key(|(bytes, ..)| *bytes)?;
    Some((name.clone(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn arrivals() -> Arrivals {
        Arrivals::new(ArrivingLimits {
            per_user_bytes: 8 * MIB,
            total_bytes: 16 * MIB,
        })
    }

    fn sends(arrivals: &Arrivals, user: &str, bytes: usize) -> Result<Arriving, ApiError> {
        let arriving = arrivals.begin(user, &HeaderMap::new())?;
        arriving.grow(bytes)?;
        Ok(arriving)
    }

    #[test]
    fn what_one_user_sends_is_bounded_however_small_each_piece_is() {
        let arrivals = arrivals();
        let held: Vec<_> = std::iter::from_fn(|| sends(&arrivals, "mallory", 60_000).ok()).collect();
        assert!((100..=8 * MIB / 60_000).contains(&held.len()), "{}", held.len());
        let error = arrivals
            .begin("mallory", &HeaderMap::new())
            .and_then(|r| r.grow(60_000).map(|()| r));
        let error = error.err().unwrap();
        assert_eq!((error.code.as_u16(), error.retry_after_s), (429, Some(1)));
        assert!(sends(&arrivals, "admin", 3 * MIB).is_ok());
        // Streams with nothing on them count as well.
        drop(held);
        let empty = std::iter::from_fn(|| arrivals.begin("mallory", &HeaderMap::new()).ok());
        assert_eq!(empty.take(5000).collect::<Vec<_>>().len(), 8 * MIB / EACH_BYTES);
    }

    #[tokio::test]
    async fn whoever_has_most_gives_back_what_another_needs() {
        let arrivals = arrivals();
        let fill = |user| -> Vec<_> { std::iter::from_fn(|| sends(&arrivals, user, MIB).ok()).collect() };
        let mallory = fill("mallory");
        let bob: Vec<_> = (0..5).map(|_| sends(&arrivals, "bob", MIB).unwrap()).collect();
        let admin = sends(&arrivals, "admin", 4 * MIB).unwrap();
        let out = |all: &[Arriving]| all.iter().filter(|r| r.pushed_out.is_cancelled()).count();
        assert_eq!((out(&mallory), out(&bob)), (1, 0));
        assert!(admin.grow(MIB).is_ok() && out(&mallory) == 2);
        let gone = mallory.iter().find(|r| r.pushed_out.is_cancelled()).unwrap();
        assert_eq!(gone.pushed_out().await.code.as_u16(), 429);
        assert!(gone.grow(1).is_err());
        // Who has most takes from nobody.
        assert!(sends(&arrivals, "bob", 2 * MIB).is_err());
        // What is in work stays.
        bob.iter()
            .chain(&mallory)
            .chain([&admin])
            .for_each(Arriving::settle);
        assert!(sends(&arrivals, "carol", MIB).is_err() && out(&bob) == 0);
        drop(bob);
        assert!(sends(&arrivals, "carol", MIB).is_ok());
    }
}
