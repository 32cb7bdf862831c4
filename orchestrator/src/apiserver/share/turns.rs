//! Whose turn it is: a seat that becomes free goes to the next user who waits, and of theirs to the next connection. Pure.

use std::collections::VecDeque;

use super::Client;

/// Seats of one kind of request, and who waits for one. `W` is whatever wakes a waiter.
pub(super) struct Turns<W> {
    free: usize,
    waiting_per_connection: usize,
    waiting_total: usize,
    waiting: usize,
    /// Those who wait; next first.
    users: VecDeque<User<W>>,
}

struct User<W> {
    name: String,
    connections: VecDeque<(u64, VecDeque<W>)>,
}

impl<W> User<W> {
    fn waits(&self) -> usize {
        self.connections.iter().map(|(_, line)| line.len()).sum()
    }
}

/// What came of asking for a seat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is yours.
    Seat,
    /// You will be woken.
    Waits,
    /// Too many wait.
    Full,
}

impl<W> Turns<W> {
    pub fn new(seats: usize, waiting_per_connection: usize, waiting_total: usize) -> Self {
        Self {
            free: seats,
            waiting_per_connection,
            waiting_total,
            waiting: 0,
            users: VecDeque::new(),
        }
    }

    /// Takes a seat, or a place in the line.
    pub fn ask(&mut self, client: &Client, waiter: impl FnOnce() -> W) -> Asked {
        if self.free > 0 {
            self.free -= 1;
            return Asked::Seat;
        }
        if self.waiting >= self.waiting_total && !self.make_room(&client.user) {
            return Asked::Full;
        }
        let user = place(
            &mut self.users,
            |u| u.name == client.user,
            || User {
                name: client.user.clone(),
                connections: VecDeque::new(),
            },
        );
        let (_, line) = place(
            &mut user.connections,
            |(number, _)| *number == client.connection,
            || (client.connection, VecDeque::new()),
        );
        if line.len() >= self.waiting_per_connection {
            return Asked::Full;
        }
        line.push_back(waiter());
        self.waiting += 1;
        Asked::Waits
    }

    /// The last of whoever has most in the line goes, unless that is the one who asks.
    fn make_room(&mut self, asks: &str) -> bool {
        let Some(most) = self.users.iter_mut().max_by_key(|user| user.waits()) else {
            return false;
        };
        if most.name == asks {
            return false;
        }
        let longest = most.connections.iter_mut().max_by_key(|(_, line)| line.len());
        longest.and_then(|(_, line)| line.pop_back());
        most.connections.retain(|(_, line)| !line.is_empty());
        self.users.retain(|user| !user.connections.is_empty());
        self.waiting -= 1;
        true
    }

    /// A seat becomes free: the one whose turn it is has it now; nobody, if nobody waits.
    pub fn leave(&mut self) -> Option<W> {
        let Some(mut user) = self.users.pop_front() else {
            self.free += 1;
            return None;
        };
        let next = user.connections.pop_front().and_then(|(number, mut line)| {
            let next = line.pop_front();
            if !line.is_empty() {
                user.connections.push_back((number, line));
            }
            next
        });
        if !user.connections.is_empty() {
            self.users.push_back(user);
        }
        self.waiting -= usize::from(next.is_some());
        next
    }

    /// Forgets waiters that went away.
    pub fn retain(&mut self, mut waits: impl FnMut(&W) -> bool) {
        for user in &mut self.users {
            for (_, line) in &mut user.connections {
                line.retain(&mut waits);
            }
            user.connections.retain(|(_, line)| !line.is_empty());
        }
        self.users.retain(|user| !user.connections.is_empty());
        self.waiting = self.users.iter().map(User::waits).sum();
    }
}

/// The entry that fits, or a new one at the end.
fn place<T>(list: &mut VecDeque<T>, fits: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let index = list.iter().position(fits).unwrap_or_else(|| {
        list.push_back(new());
        list.len() - 1
    });
    &mut list[index]
}

#[cfg(test)]
mod tests {
    use super::super::Unread;
    use super::*;
    use crate::apiserver::limits::Limits;

    fn client(user: &str, connection: u64) -> Client {
        Client::new(
            user.to_owned(),
            connection,
            Unread::new(Limits::default().connections.unread),
        )
    }

    #[test]
    fn users_and_connections_take_turns() {
        let mut turns = Turns::new(1, 10, 100);
        assert_eq!(turns.ask(&client("loop", 1), || "first"), Asked::Seat);
        for waiter in ["a1", "a2", "a3"] {
            assert_eq!(turns.ask(&client("loop", 1), || waiter), Asked::Waits);
        }
        turns.ask(&client("loop", 2), || "b1");
        turns.ask(&client("other", 3), || "c1");
        let order: Vec<_> = std::iter::from_fn(|| turns.leave()).collect();
        assert_eq!(order, ["a1", "c1", "b1", "a2", "a3"]);
        assert_eq!(turns.ask(&client("loop", 1), || "x"), Asked::Seat);
    }

    #[test]
    fn whoever_has_most_in_the_line_makes_room() {
        let mut turns = Turns::new(0, 2, 3);
        for (connection, waiter) in [(1, 1), (1, 2), (2, 3)] {
            assert_eq!(turns.ask(&client("u", connection), || waiter), Asked::Waits);
        }
        assert_eq!(turns.ask(&client("v", 3), || 4), Asked::Waits);
        let order: Vec<_> = std::iter::from_fn(|| turns.leave()).collect();
        assert_eq!(order, [1, 4, 3]);
    }

    #[test]
    fn lines_are_bounded_and_the_dead_leave_them() {
        let mut turns = Turns::new(0, 2, 3);
        assert_eq!(turns.ask(&client("u", 1), || 1), Asked::Waits);
        assert_eq!(turns.ask(&client("u", 1), || 2), Asked::Waits);
        assert_eq!(turns.ask(&client("u", 1), || 3), Asked::Full, "of one connection");
        assert_eq!(turns.ask(&client("u", 2), || 4), Asked::Waits);
        assert_eq!(turns.ask(&client("u", 5), || 5), Asked::Full, "of all");
        turns.retain(|waiter| *waiter == 4);
        assert_eq!(turns.ask(&client("v", 3), || 6), Asked::Waits);
        assert_eq!(
            [turns.leave(), turns.leave(), turns.leave()],
            [Some(4), Some(6), None]
        );
    }
}
