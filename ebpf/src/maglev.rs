//! Weighted Maglev tables (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! A table changes little when a backend comes or goes, so that even packets of flows that are not on
//! record mostly reach the backend they reached before.

use gantry_ebpf_common::MAGLEV_SLOTS;
use gantry_ebpf_common::layout::Table;
use sha2::{Digest, Sha256};

/// One backend as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What slots of this backend hold.
    pub id: u32,
    /// Address and port: decide which slots, whatever the id.
    pub identity: (u32, u16),
    /// Share of the slots, relative to the others; 0 gets none.
    pub weight: u32,
}

/// The table; 0 everywhere if no entry has a weight.
pub fn table(entries: &[Entry]) -> Table {
    let mut entries: Vec<Entry> = entries.iter().filter(|e| e.weight > 0).copied().collect();
    entries.sort_by_key(|e| e.identity);
    let mut table: Table = [0; size_of::<Table>() / size_of::<u32>()];
    let Some(heaviest) = entries.iter().map(|e| u64::from(e.weight)).max() else {
        return table;
    };
    let mut walks: Vec<Walk> = entries.iter().map(Walk::new).collect();
    let mut left = MAGLEV_SLOTS;
    while left > 0 {
        for (entry, walk) in entries.iter().zip(&mut walks) {
            // A turn each time the weights of the rounds so far add up to the heaviest one's.
            walk.credit += u64::from(entry.weight);
            if walk.credit < heaviest {
                continue;
            }
            walk.credit -= heaviest;
            let slot = walk.next_free(&table);
            table[slot] = entry.id;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table
}

/// A backend's own order of the slots.
struct Walk {
    position: u32,
    skip: u32,
    credit: u64,
}

impl Walk {
    fn new(entry: &Entry) -> Walk {
        let mut hash = Sha256::new();
        hash.update(entry.identity.0.to_be_bytes());
        hash.update(entry.identity.1.to_be_bytes());
        let digest = hash.finalize();
        let word =
            |at: usize| u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
        Walk {
            position: word(0) % MAGLEV_SLOTS,
            skip: word(4) % (MAGLEV_SLOTS - 1) + 1,
            credit: 0,
        }
    }

    fn next_free(&mut self, table: &Table) -> usize {
        loop {
            let slot = self.position as usize;
            self.position = (self.position + self.skip) % MAGLEV_SLOTS;
            if table[slot] == 0 {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots(entries: &[Entry]) -> Vec<u32> {
        table(entries)[..MAGLEV_SLOTS as usize].to_vec()
    }

    fn entries(weights: &[u32]) -> Vec<Entry> {
        let entry = |(i, w): (usize, &u32)| Entry {
            id: i as u32 + 1,
            identity: (0x0a55_0002 + i as u32, 5060),
            weight: *w,
        };
        weights.iter().enumerate().map(entry).collect()
    }

    fn share(table: &[u32], id: u32) -> f64 {
        table.iter().filter(|s| **s == id).count() as f64 / table.len() as f64
    }

    #[test]
    fn no_backend_no_slot() {
        assert!(slots(&[]).iter().all(|s| *s == 0));
        assert!(slots(&entries(&[0])).iter().all(|s| *s == 0));
    }

    #[test]
    fn order_and_ids_do_not_matter_to_the_slots() {
        let mut a = entries(&[1, 2, 3]);
        let before = slots(&a);
        a.reverse();
        assert_eq!(slots(&a), before);
    }

    proptest! {
        #[test]
        fn every_slot_is_taken_and_weights_hold(weights in prop::collection::vec(1u32..20, 1..12)) {
            let t = slots(&entries(&weights));
            let total: u32 = weights.iter().sum();
            for (i, w) in weights.iter().enumerate() {
                let wanted = f64::from(*w) / f64::from(total);
                let got = share(&t, i as u32 + 1);
                prop_assert!((got - wanted).abs() < 0.02, "backend {i} of {weights:?}: {got} for {wanted}");
            }
            prop_assert!(t.iter().all(|s| *s != 0));
        }

        #[test]
        fn removing_one_moves_little_else(n in 2usize..16, gone in 0usize..16) {
            let all = entries(&vec![1; n]);
            let gone = gone % n;
            let before = slots(&all);
            let fewer: Vec<Entry> = all.iter().filter(|e| e.id != all[gone].id).copied().collect();
            let after = slots(&fewer);
            let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count() as f64;
            let moved = moved / f64::from(MAGLEV_SLOTS);
            prop_assert!(moved < 1.0 / n as f64 + 0.12, "{moved} of the slots moved, 1/{n} expected");
        }
    }
}
