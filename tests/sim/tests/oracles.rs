//! Seeds run clean; a seed is a history; and for each oracle a core that was broken on purpose is caught.

use gantry_sim::{Oracle, Sabotage, run, run_broken};

/// Seeds that a broken core gets to show itself.
const TRIES: u64 = 40;

/// Some seed shows it to the oracle that is meant for it; in others another one may see it first.
fn is_caught(sabotage: Sabotage, oracle: Oracle) {
    let mut others = Vec::new();
    for seed in 0..TRIES {
        match run_broken(seed, sabotage) {
            Err(failure) if failure.oracle == oracle => return,
            Err(failure) => others.push(failure.to_string()),
            Ok(_) => {}
        }
    }
    panic!("{sabotage:?} is not caught by {oracle:?} in {TRIES} seeds, but by {others:#?}");
}

#[test]
fn some_seeds_run_clean() {
    for seed in 0..25 {
        let report = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.steps > 0);
    }
}

#[test]
fn a_seed_is_a_history() {
    assert_eq!(run(3), run(3));
}

#[test]
fn the_histories_are_worth_something() {
    let reports: Vec<_> = (0..10).filter_map(|seed| run(seed).ok()).collect();
    let sum = |pick: fn(&gantry_sim::Report) -> u64| reports.iter().map(pick).sum::<u64>();
    assert!(
        sum(|r| r.sessions) > 500 && sum(|r| r.operations) > 50 && sum(|r| r.faults) > 30,
        "{reports:?}"
    );
}

#[test]
fn a_cpu_with_two_owners_is_caught() {
    is_caught(Sabotage::SharedPoolEverywhere, Oracle::OneOwner);
}

#[test]
fn a_generation_that_stands_is_caught() {
    is_caught(Sabotage::GenerationStands, Oracle::Generations);
}

#[test]
fn an_invalid_plan_is_caught() {
    is_caught(Sabotage::PlanInventsCpu, Oracle::PlanIsValid);
}

#[test]
fn a_plan_of_other_parents_is_caught() {
    is_caught(Sabotage::PlanForgetsParent, Oracle::PlanLineage);
}

#[test]
fn a_cut_session_is_caught() {
    is_caught(Sabotage::DrainDoesNotWait, Oracle::Sessions);
}

#[test]
fn a_world_that_does_not_converge_is_caught() {
    is_caught(Sabotage::ConfigsAreLost, Oracle::Converges);
}

#[test]
fn an_operation_without_end_is_caught() {
    is_caught(Sabotage::OperationsGoOn, Oracle::OperationsEnd);
}

#[test]
fn a_refused_plan_is_caught() {
    is_caught(Sabotage::PlansAreRefused, Oracle::PlanIsValid);
}

#[test]
fn an_operation_that_ends_before_it_is_done_is_caught() {
    is_caught(Sabotage::OperationsEndEarly, Oracle::SucceededIsDone);
}

#[test]
fn a_receipt_that_forgets_a_loss_is_caught() {
    is_caught(Sabotage::ReceiptsForget, Oracle::Receipts);
}

#[test]
fn what_cannot_be_read_and_is_taken_for_missing_is_caught() {
    is_caught(Sabotage::ForgetsUnreadable, Oracle::Untouched);
}

#[test]
fn a_flood_without_bound_is_caught() {
    is_caught(Sabotage::FloodsPass, Oracle::Bounded);
}
