//! The allocator on machines that a person can picture, and its rules on random ones.

use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::*;
use proptest::prelude::*;

/// One NUMA node a socket; siblings are numbered as Linux does (0 and 8 with 8 cores).
fn machine(sockets: u32, cores: u32, threads: u32, cores_per_l3: u32) -> Topology {
    let total = sockets * cores;
    let cpu = |id: u32| {
        let (core, socket) = (id % total, id % total / cores);
        Cpu {
            id,
            core,
            l3: core / cores_per_l3,
            numa: socket,
            socket,
        }
    };
    let numa = |id| NumaNode {
        id,
        memory_bytes: 0,
        hugepages: BTreeMap::new(),
        distances: BTreeMap::new(),
    };
    Topology {
        cpus: (0..total * threads).map(cpu).collect(),
        numa_nodes: (0..sockets).map(numa).collect(),
    }
}

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

struct Case<'a> {
    free: &'a str,
    current: &'a str,
    count: u32,
    smt: Smt,
    numa: Numa,
}

fn run(topology: &Topology, case: &Case<'_>) -> Result<String, Misfit> {
    let allowed: BTreeSet<NumaId> = topology.numa_nodes.iter().map(|n| n.id).collect();
    let current = set(case.current);
    let wish = CpuWish {
        count: case.count,
        smt: case.smt,
        numa: case.numa,
        allowed: &allowed,
        current: &current,
    };
    allocate(topology, &set(case.free), &wish).map(|cpus| cpus.to_string())
}

fn first(free: &str, count: u32, smt: Smt, numa: Numa) -> Case<'_> {
    Case {
        free,
        current: "",
        count,
        smt,
        numa,
    }
}

/// 2 sockets of 8 cores with 2 threads; L3 groups of 4 cores: 0-3, 4-7, 8-11, 12-15, siblings +16.
fn server() -> Topology {
    machine(2, 8, 2, 4)
}

#[test]
fn whole_cores_come_from_one_l3_group() {
    assert_eq!(
        run(&server(), &first("0-31", 4, Smt::Full, Numa::Single)).unwrap(),
        "0-1,16-17"
    );
    // The second L3 group has less room to spare.
    assert_eq!(
        run(&server(), &first("0-5,16-21", 4, Smt::Full, Numa::Single)).unwrap(),
        "4-5,20-21"
    );
    // The emptier NUMA node is left alone.
    assert_eq!(
        run(&server(), &first("2-31", 4, Smt::Full, Numa::Prefer)).unwrap(),
        "2-3,18-19"
    );
}

#[test]
fn single_cpus_use_up_fragments() {
    assert_eq!(
        run(&server(), &first("0-3,16,18-19", 1, Smt::Any, Numa::Prefer)).unwrap(),
        "1"
    );
    assert_eq!(
        run(&server(), &first("0-3,16,18-19", 3, Smt::Any, Numa::Prefer)).unwrap(),
        "0-1,16"
    );
}

#[test]
fn single_numa_does_not_fit_where_prefer_does() {
    let topology = machine(2, 2, 1, 2);
    let misfit = run(&topology, &first("1-2", 2, Smt::Full, Numa::Single)).unwrap_err();
    let one = Available { usable: 1, free: 1 };
    assert_eq!(
        misfit,
        Misfit::TooFew {
            missing: 2,
            numa_nodes: BTreeMap::from([(0, one), (1, one)])
        }
    );
    assert_eq!(
        run(&topology, &first("1-2", 2, Smt::Full, Numa::Prefer)).unwrap(),
        "1-2"
    );
}

#[test]
fn split_cores_are_no_use_for_whole_ones() {
    let topology = machine(1, 4, 2, 4);
    let misfit = run(&topology, &first("0-3,4", 4, Smt::Full, Numa::Prefer)).unwrap_err();
    let has = Available { usable: 2, free: 5 };
    assert_eq!(
        misfit,
        Misfit::TooFew {
            missing: 4,
            numa_nodes: BTreeMap::from([(0, has)])
        }
    );
}

#[test]
fn growth_is_adjacent() {
    let grow = |free, current, count, smt| {
        run(
            &server(),
            &Case {
                free,
                current,
                count,
                smt,
                numa: Numa::Prefer,
            },
        )
        .unwrap()
    };
    // The idle sibling, then the L3 group, then the NUMA node.
    assert_eq!(grow("1-15,17-31", "0,16", 4, Smt::Full), "0-1,16-17");
    assert_eq!(grow("2-3,5-15,18,21-31", "4,20", 4, Smt::Full), "4-5,20-21");
    assert_eq!(grow("2,8-15,18,24-31", "4,20", 4, Smt::Full), "2,4,18,20");
    assert_eq!(grow("1,16", "0", 2, Smt::Any), "0,16");
    let other_numa = Case {
        free: "8-15",
        current: "0",
        count: 2,
        smt: Smt::Any,
        numa: Numa::Single,
    };
    assert!(matches!(
        run(&server(), &other_numa),
        Err(Misfit::TooFew { missing: 1, .. })
    ));
}

#[test]
fn a_shrink_keeps_whole_cores_on_one_numa_node() {
    let shrink = |current, count, smt| {
        run(
            &server(),
            &Case {
                free: "",
                current,
                count,
                smt,
                numa: Numa::Prefer,
            },
        )
        .unwrap()
    };
    assert_eq!(shrink("0-1,16-17", 2, Smt::Full), "0,16");
    assert_eq!(shrink("7-10,23-26", 2, Smt::Full), "7,23");
    assert_eq!(shrink("7-10", 3, Smt::Any), "8-10");
    assert_eq!(shrink("0-1", 0, Smt::Any), "");
}

#[test]
fn whole_cores_cannot_be_had_where_a_sibling_is_taken() {
    let case = Case {
        free: "1,17",
        current: "0",
        count: 2,
        smt: Smt::Full,
        numa: Numa::Prefer,
    };
    assert_eq!(
        run(&server(), &case).unwrap_err(),
        Misfit::SplitCores { cpus: set("0") }
    );
}

fn policies() -> impl Strategy<Value = (Smt, Numa)> {
    let smt = prop_oneof![Just(Smt::Full), Just(Smt::Any)];
    (
        smt,
        prop_oneof![Just(Numa::Single), Just(Numa::Prefer), Just(Numa::Any)],
    )
}

/// CPUs that a wish could use if it had none: all free ones, or those of wholly free cores.
fn usable(topology: &Topology, free: &CpuSet, smt: Smt) -> CpuSet {
    let core_is_free = |core| {
        topology
            .cpus
            .iter()
            .filter(|c| c.core == core)
            .all(|c| free.contains(c.id))
    };
    let fits = |c: &&Cpu| free.contains(c.id) && (smt == Smt::Any || core_is_free(c.core));
    topology.cpus.iter().filter(fits).map(|c| c.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gives_exactly_what_there_is_and_grows_and_shrinks_in_place(
        (sockets, cores, threads, l3) in (1_u32..=3, 1_u32..=6, 1_u32..=2, 1_u32..=3),
        taken in prop::collection::btree_set(0_u32..36, 0..20),
        (smt, numa) in policies(),
        (count, later) in (1_u32..14, 0_u32..20),
    ) {
        let topology = machine(sockets, cores, threads, l3);
        let free = topology.all_cpus().difference(&taken.into_iter().collect());
        let allowed: BTreeSet<NumaId> = topology.numa_nodes.iter().map(|n| n.id).collect();
        let nothing = CpuSet::new();
        let wish = CpuWish { count, smt, numa, allowed: &allowed, current: &nothing };
        let usable = usable(&topology, &free, smt);
        let most = match numa {
            Numa::Single => allowed.iter().map(|n| topology.cpus_of_numa(*n).intersection(&usable).len()).max(),
            Numa::Prefer | Numa::Any => Some(usable.len()),
        };
        let found = allocate(&topology, &free, &wish);
        prop_assert_eq!(found.is_ok(), most >= Some(count as usize), "{:?}", found);
        let Ok(current) = found else { return Ok(()) };
        prop_assert_eq!(current.len(), count as usize);
        prop_assert!(current.is_subset(&usable));
        prop_assert!(numa != Numa::Single || topology.numa_of(&current).len() == 1);

        let resize = CpuWish { count: later, smt, numa, allowed: &allowed, current: &current };
        let resized = allocate(&topology, &free.difference(&current), &resize);
        prop_assert!(resized.is_ok() || later > count, "a shrink always fits: {:?}", resized);
        if let Ok(resized) = resized {
            prop_assert_eq!(resized.len(), later as usize);
            prop_assert!(resized.is_subset(&usable));
            let (small, large) = if later < count { (&resized, &current) } else { (&current, &resized) };
            prop_assert!(small.is_subset(large));
            prop_assert!(numa != Numa::Single || topology.numa_of(&resized).len() <= 1);
        }
    }
}
