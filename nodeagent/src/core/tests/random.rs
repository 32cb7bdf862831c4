//! Random configurations, orders, failures and crashes: no CPU ever has two owners, and in the end all is as wanted.

use gantry_nodeagent_api::{NodeConfig, PodDesired};
use proptest::prelude::*;

use super::node::{Node, config};
use crate::core::Event;

/// xorshift64*, so that a seed replays.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// Six CPUs dealt out to the pool (never empty) and five pods, any of which may be absent, shared or told to stop.
fn deal(dice: &mut Dice, generation: u64) -> NodeConfig {
    let mut sets = vec![vec![0usize]; 1];
    sets.resize(6, Vec::new());
    for cpu in 1..6 {
        let owner = dice.below(7);
        if owner < 6 {
            sets[owner].push(cpu);
        }
    }
    let text = |set: &[usize]| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let names = ["a", "b", "c", "d", "e"];
    let sets: Vec<String> = sets.iter().map(|s| text(s)).collect();
    let pods: Vec<(&str, &str)> = names
        .iter()
        .zip(&sets[1..])
        .map(|(n, s)| (*n, s.as_str()))
        .collect();
    let mut config = config(generation, &sets[0], &pods);
    for name in names {
        match dice.below(6) {
            0 => drop(config.pods.remove(name)),
            1 => config.pods.get_mut(name).unwrap().desired = PodDesired::Stop,
            _ => {}
        }
    }
    config
}

fn run(seed: u64) {
    let mut dice = Dice(seed | 1);
    let mut node = Node::new();
    let mut generation = 0;
    for _ in 0..120 {
        match dice.below(20) {
            0..=1 => {
                generation += 1;
                let config = deal(&mut dice, generation);
                node.config(&config);
            }
            2 => {
                let old = deal(&mut dice, 0);
                node.config(&NodeConfig {
                    generation: node.state.accepted(),
                    ..old
                });
            }
            3 => node.crash(node.disk.clone()),
            4 => node.fail = 1,
            5 => {
                if let Some((uid, name)) = node.runs.keys().nth(dice.below(5)).cloned() {
                    node.exit(&uid, &name, 1);
                }
            }
            6 => {
                node.now_ms += dice.below(4000) as u64;
                node.event(Event::Tick);
            }
            _ if node.pending.is_empty() => {}
            _ => {
                let index = dice.below(node.pending.len());
                node.perform(index);
            }
        }
    }
    let last = deal(&mut dice, generation + 1);
    node.fail = 0;
    node.config(&last);
    node.pass(200_000);
    let status = node.status();
    assert_eq!(status.accepted, last.generation, "seed {seed}");
    assert_eq!(status.applied, last.generation, "seed {seed}: {status:#?}");
    let wanted = last.pods.iter().filter(|(_, pod)| pod.desired == PodDesired::Run);
    let wanted: Vec<_> = wanted
        .map(|(uid, pod)| (uid, &pod.containers[0].resources.cpus))
        .collect();
    let found: Vec<_> = status.pods.iter().map(|(uid, pod)| (uid, &pod.cpus)).collect();
    assert_eq!(found, wanted, "seed {seed}");
    assert!(
        status.pods.values().all(|pod| pod.ready),
        "seed {seed}: {status:#?}"
    );
    assert!(node.state.settled(), "seed {seed}");
}

/// `PROPTEST_CASES`, or 400.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_cpu_has_two_owners_and_all_converges(seed in any::<u64>()) {
        run(seed);
    }
}

#[test]
fn seeds_that_once_failed() {
    for seed in [10_986_093_765_550_820_414, 1_961_889_062_191_909_662] {
        run(seed);
    }
}
