//! Who has how many bytes of something in memory: entries by user, and their sums. What is too much its keeper decides.

use std::collections::{BTreeMap, HashMap};

/// Entries of all users.
pub(super) struct Books<T> {
    next: u64,
    bytes: usize,
    users: HashMap<String, Account<T>>,
}

/// Entries of one user.
pub(super) struct Account<T> {
    /// Of all of them.
    pub bytes: usize,
    /// Oldest first.
    pub entries: BTreeMap<u64, Entry<T>>,
}

/// One of them.
pub(super) struct Entry<T> {
    pub bytes: usize,
    pub what: T,
}

impl<T> Default for Books<T> {
    fn default() -> Self {
        Self {
            next: 0,
            bytes: 0,
            users: HashMap::new(),
        }
    }
}

impl<T> Books<T> {
    /// Bytes of all users.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one user.
    pub fn bytes_of(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |account| account.bytes)
    }

    /// All that have something.
    pub fn users(&self) -> &HashMap<String, Account<T>> {
        &self.users
    }

    /// Returns the new entry's number.
    pub fn add(&mut self, user: &str, bytes: usize, what: T) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        let account = self.users.entry(user.to_owned()).or_insert_with(|| Account {
            bytes: 0,
            entries: BTreeMap::new(),
        });
        account.bytes += bytes;
        account.entries.insert(number, Entry { bytes, what });
        number
    }

    /// `None` if it is not there any more.
    pub fn entry(&mut self, user: &str, number: u64) -> Option<&mut T> {
        let entry = self.users.get_mut(user)?.entries.get_mut(&number)?;
        Some(&mut entry.what)
    }

    /// `None` if it is not there any more.
    pub fn grow(&mut self, user: &str, number: u64, bytes: usize) -> Option<()> {
        let account = self.users.get_mut(user)?;
        account.entries.get_mut(&number)?.bytes += bytes;
        account.bytes += bytes;
        self.bytes += bytes;
        Some(())
    }

    /// `None` if it is not there any more.
    pub fn remove(&mut self, user: &str, number: u64) -> Option<T> {
        let account = self.users.get_mut(user)?;
        let entry = account.entries.remove(&number)?;
        account.bytes -= entry.bytes;
        self.bytes -= entry.bytes;
        if account.entries.is_empty() {
            self.users.remove(user);
        }
        Some(entry.what)
    }
}
