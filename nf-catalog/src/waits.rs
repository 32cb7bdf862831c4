//! Which function waits for which before it starts.

use std::collections::{BTreeMap, BTreeSet};

/// Functions by name, each with those that it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Waits<'a> {
    /// `function` waits for `peer`.
    pub fn add(&mut self, function: &'a str, peer: &'a str) {
        self.0.entry(function).or_default().insert(peer);
    }

    /// All that `function` waits for, at any remove; itself among them if it is in a circle.
    pub fn before(&self, function: &str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&'a str> = self.direct(function).collect();
        while let Some(peer) = next.pop() {
            if found.insert(peer) {
                next.extend(self.direct(peer));
            }
        }
        found
    }

    /// Some functions that wait for each other, if any do.
    pub fn circle(&self) -> Option<Vec<&'a str>> {
        let in_circle = |name: &&&'a str| self.before(name).contains(**name);
        let first = self.0.keys().find(in_circle)?;
        let around = self.before(first);
        Some(
            around
                .into_iter()
                .filter(|name| self.before(name).contains(first))
                .collect(),
        )
    }

    fn direct(&self, function: &str) -> impl Iterator<Item = &'a str> {
        self.0.get(function).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_and_what_leads_to_it_is_no_part() {
        let mut waits = Waits::default();
        for (function, peer) in [("a", "b"), ("b", "c"), ("c", "b"), ("d", "a")] {
            waits.add(function, peer);
        }
        assert_eq!(waits.circle(), Some(vec!["b", "c"]));
        assert_eq!(waits.before("d").into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        let mut line = Waits::default();
        line.add("a", "b");
        line.add("b", "c");
        assert_eq!(line.circle(), None);
    }
}
