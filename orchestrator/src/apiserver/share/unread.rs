//! Answers that wait to be read: they are in memory until the client takes them. One that asks and does not read is cut off
//! once its answers come to too much, and others never wait for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::limits::UnreadLimits;
use super::Client;
use super::books::{Books, Entry};
use crate::store::Revision;

/// What an answer takes beside its content.
const EACH_BYTES: usize = 4 << 10;

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct Unread {
    limits: UnreadLimits,
    books: Arc<Mutex<Books<Answer>>>,
}

/// One of them; read or given up when it is dropped.
pub struct Reading {
    books: Arc<Mutex<Books<Answer>>>,
    user: String,
    number: u64,
}

struct Answer {
    since: Instant,
    connection: u64,
    end: CancellationToken,
    /// The store's objects in it, as of a revision: none of its own while the store has them too.
    objects: Option<(Revision, usize)>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.remove(&self.user, self.number);
    }
}

impl Unread {
    pub fn new(limits: UnreadLimits) -> Self {
        Self {
            limits,
            books: Arc::default(),
        }
    }

    /// The store has forgotten what is older: answers that hold such objects are now all that keeps them in memory.
    pub fn forgotten(&self, before: Revision) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = Vec::new();
        for (user, account) in books.users() {
            let numbers = account.entries.iter();
            let number = |(number, entry): (&u64, &Entry<Answer>)| {
                let (_, bytes) = entry.what.objects.filter(|(at, _)| *at < before)?;
                Some((user.clone(), *number, bytes))
            };
            old.extend(numbers.filter_map(number));
        }
        for (user, number, bytes) in old {
            books.grow(&user, number, bytes);
            if let Some(answer) = books.entry(&user, number) {
                answer.objects = None;
            }
        }
    }

    /// An answer of so many bytes to a client, and the store's objects in it. `None` if there is no room.
    pub fn begin(
        &self,
        client: &Client,
        bytes: usize,
        objects: Option<(Revision, usize)>,
    ) -> Option<Reading> {
        self.make_room(&client.user, bytes)?;
        Some(self.add(client, bytes, objects))
    }

    /// Room for an answer of so many bytes. `None` if those of the user come to too much and are all new, so that it may still be
    /// reading.
    pub fn make_room(&self, user: &str, bytes: usize) -> Option<()> {
        let wanted = bytes.saturating_add(EACH_BYTES);
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        while books.bytes_of(user) > 0
            && books.bytes_of(user).saturating_add(wanted) > self.limits.per_user_bytes
        {
            cut(&mut books, user, self.limits.patience)?;
        }
        // Whoever has most of all makes room for the others.
        while books.bytes() > 0 && books.bytes().saturating_add(wanted) > self.limits.total_bytes {
            let most = books.users().iter().max_by_key(|(_, u)| u.bytes)?.0.clone();
            cut(&mut books, &most, Duration::ZERO)?;
        }
        Some(())
    }

    /// The answer, whether there is room or not.
    pub fn add(&self, client: &Client, bytes: usize, objects: Option<(Revision, usize)>) -> Reading {
        let answer = Answer {
            since: Instant::now(),
            connection: client.connection,
            end: client.end.clone(),
            objects,
        };
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let number = books.add(&client.user, bytes.saturating_add(EACH_BYTES), answer);
        Reading {
            books: self.books.clone(),
            user: client.user.clone(),
            number,
        }
    }
}

/// Closes the connection of the user's oldest answer, if that has waited for so long; all that waits there goes with it.
fn cut(books: &mut Books<Answer>, user: &str, patience: Duration) -> Option<()> {
    let answers = &books.users().get(user)?.entries;
    let oldest = &answers.values().next()?.what;
    if oldest.since.elapsed() < patience {
        return None;
    }
    tracing::warn!(
        user,
        "a client does not read its answers: its connection is closed"
    );
    oldest.end.cancel();
    let same = answers
        .iter()
        .filter(|(_, a)| a.what.connection == oldest.connection);
    let gone: Vec<u64> = same.map(|(number, _)| *number).collect();
    for number in gone {
        books.remove(user, number);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn unread(patience: Duration) -> Unread {
        Unread::new(UnreadLimits {
            per_user_bytes: 32 * KIB,
            total_bytes: 48 * KIB,
            patience,
        })
    }

    fn clients<const N: usize>(unread: &Unread, users: [&str; N]) -> [Client; N] {
        let mut connection = 0;
        users.map(|user| {
            connection += 1;
            Client::new(user.to_owned(), connection, unread.clone())
        })
    }

    #[test]
    fn who_does_not_read_is_cut_off_and_who_reads_goes_on() {
        let unread = unread(Duration::ZERO);
        let [first, second] = clients(&unread, ["a", "a"]);
        let begin = |client| unread.begin(client, 12 * KIB, None);
        let held = [begin(&first), begin(&second)];
        assert!(held.iter().all(Option::is_some) && !first.end.is_cancelled());
        let third = begin(&second);
        assert!(third.is_some() && first.end.is_cancelled() && !second.end.is_cancelled());
        drop((held, third));
        // What was read does not count, however much it was.
        for _ in 0..10 {
            assert!(begin(&second).is_some());
        }
        assert!(!second.end.is_cancelled());
    }

    #[test]
    fn answers_that_are_new_may_still_be_read() {
        let unread = unread(Duration::from_secs(3600));
        let [first, second] = clients(&unread, ["a", "a"]);
        let held = unread.begin(&first, 20 * KIB, None);
        assert!(held.is_some() && unread.begin(&second, 20 * KIB, None).is_none());
        assert!(!first.end.is_cancelled() && !second.end.is_cancelled());
        drop(held);
        assert!(
            unread.begin(&second, 1000 * KIB, None).is_some(),
            "one is always let through"
        );
    }

    #[test]
    fn objects_that_only_an_answer_keeps_count_for_it() {
        let unread = unread(Duration::ZERO);
        let [client] = clients(&unread, ["a"]);
        let list = |at| unread.begin(&client, KIB, Some((Revision(at), 40 * KIB)));
        let held = [list(1), list(9)];
        unread.forgotten(Revision(1));
        assert!(
            list(9).is_some() && !client.end.is_cancelled(),
            "the store has them too"
        );
        unread.forgotten(Revision(2));
        assert!(list(9).is_some() && client.end.is_cancelled());
        drop(held);
    }

    #[test]
    fn whoever_has_most_makes_room_for_others() {
        let unread = unread(Duration::from_secs(3600));
        let [a, b, c] = clients(&unread, ["a", "b", "c"]);
        let _a = unread.begin(&a, 24 * KIB, None).unwrap();
        let _b = unread.begin(&b, 12 * KIB, None).unwrap();
        let _c = unread.begin(&c, 12 * KIB, None).unwrap();
        let cut = [a, b, c].map(|client| client.end.is_cancelled());
        assert_eq!(cut, [true, false, false]);
    }
}
