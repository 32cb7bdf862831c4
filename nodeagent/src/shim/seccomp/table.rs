//! Names and numbers of system calls.

use std::collections::HashMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("x86_64.txt");

/// How many calls of kernels to come get "no such call": programs that try a new one first then use an older one.
const TO_COME: i64 = 128;

/// The number of a call; `None` for one that this architecture does not have.
pub(super) fn number(name: &str) -> Option<i64> {
    static NUMBERS: OnceLock<HashMap<&'static str, i64>> = OnceLock::new();
    NUMBERS.get_or_init(|| lines().collect()).get(name).copied()
}

/// Numbers that no call in the table has yet.
pub(super) fn to_come() -> impl Iterator<Item = i64> {
    let last = lines().map(|(_, number)| number).max().unwrap_or_default();
    last + 1..=last + TO_COME
}

fn lines() -> impl Iterator<Item = (&'static str, i64)> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (number, name) = line.split_once(' ')?;
        Some((name, number.parse().ok()?))
    })
}
