//! Hostile tenants: what one user writes, sends or runs, by kind; the answer it gets; and that everybody else goes on meanwhile.
//!
//! A case is a row of a table in [`cases`]. Its control is the same attack on a Gantry whose protection is switched off by
//! `GANTRY_TEST_UNGUARDED`: there it does harm. The test command runs one case of each kind, small, with wide bars, since
//! other tests run beside it; `cargo xtask hostile tenants` sets `HOSTILE_TABLE`, runs all of them and prints the table.

mod cases;
mod control;
mod neighbours;
mod prober;
mod process;
mod starter;
mod table;
mod tenant;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use gantry_tests::busybox;

use crate::{machine, skip};
use process::Process;
use tenant::Tenant;

/// Does it, and returns what the tenant was told: an answer, a condition, an Event, a pod's reason.
type Attack = fn(&Tenant<'_>) -> Result<String>;

/// One thing that a tenant does.
#[derive(Clone, Copy)]
struct Case {
    /// What it is called in the table.
    name: &'static str,
    /// What it is an example of.
    kind: &'static str,
    /// The protection, as `GANTRY_TEST_UNGUARDED` calls it.
    protection: &'static str,
    /// See the type.
    attack: Attack,
    /// Part of what the tenant is told.
    told: &'static str,
    /// What happens without the protection.
    harm: Harm,
}

/// What happens without a protection.
#[derive(Clone, Copy)]
enum Harm {
    /// The tenant is told this instead: it was let in.
    Told(&'static str),
    /// A process grows by so many MiB.
    Memory(Process, u64),
    /// A neighbour's request fails, or is not answered within a second.
    Neighbours,
}

/// Kinds that take minutes where the machine is slow.
const BY_HAND: &[&str] = &["storage", "events", "replicas", "service tables"];

/// How the table is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// One case of each kind, small.
    Kinds,
    /// All.
    All,
}

#[test]
fn hostile_tenants_harm_nobody_else() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("images", "needs busybox-static, for the neighbours' pods");
        return Ok(());
    }
    let extent = match std::env::var_os("HOSTILE_TABLE") {
        Some(_) => Extent::All,
        None => Extent::Kinds,
    };
    let cases = chosen(extent);
    let mut harmed = table::run(&cases, extent)?;
    // Whether a neighbour waits depends on how fast the machine is: that is for the hand, too.
    let judged = |case: &&Case| extent == Extent::All || !matches!(case.harm, Harm::Neighbours);
    for case in cases.iter().filter(judged) {
        match control::run(case, extent) {
            Ok(seen) => println!("without {:<20} {:<44} {seen}", case.protection, case.name),
            Err(error) => harmed.push(format!("the control of `{}`: {error:#}", case.name)),
        }
    }
    ensure!(harmed.is_empty(), "{}", harmed.join("\n"));
    Ok(())
}

/// `HOSTILE_ONLY` is for whoever works on some: cases with one of its words, between commas, in their name or kind.
fn chosen(extent: Extent) -> Vec<Case> {
    let only = std::env::var("HOSTILE_ONLY").unwrap_or_default();
    let mut kinds = BTreeSet::new();
    let mut cases = cases::all();
    let asked = |case: &Case| {
        only.split(',')
            .any(|word| case.name.contains(word) || case.kind.contains(word))
    };
    cases.retain(asked);
    cases.retain(|case| extent == Extent::All || !only.is_empty() || !BY_HAND.contains(&case.kind));
    cases.retain(|case| extent == Extent::All || !only.is_empty() || kinds.insert(case.kind));
    cases
}

#[test]
fn the_table_has_fifteen_kinds_and_forty_cases() {
    let cases = cases::all();
    let distinct = |of: fn(&Case) -> &'static str| cases.iter().map(of).collect::<BTreeSet<_>>().len();
    assert!(distinct(|c| c.kind) >= 15);
    assert!(cases.len() >= 40);
    assert_eq!(distinct(|c| c.name), cases.len(), "names tell cases apart");
}
