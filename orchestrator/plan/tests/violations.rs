//! The checker catches each way in which a plan can be wrong: a good plan, broken by hand.

mod common;

use common::{held, node, pod};
use gantry_plan::*;
use gantry_topology::CpuSet;

/// Two nodes and a few pods, and the plan for them.
fn world() -> (Snapshot, Plan) {
    let mut snapshot = Snapshot::default();
    let shape =
        "2 sockets x 4 cores x 2 threads, 8Gi per numa, reserved 0 8, hugepages 2 x 1Gi, label zone=east";
    snapshot.nodes.insert("a".into(), node(shape));
    snapshot
        .nodes
        .insert("b".into(), node(&shape.replace("east", "west")));
    let pods = [
        (
            "full",
            "exclusive 2 full, 1Gi, hugepages 1 x 1Gi, numa single, on a",
        ),
        ("odd", "exclusive 1 full, on a"),
        ("any", "exclusive 2 any, 1Gi, on a"),
        ("web", "shared 500m, 1Gi, select zone=east, avoid web"),
        ("web2", "shared 500m, 1Gi, avoid web, on b"),
        ("g1", "shared 100m, group g, on b"),
        ("g2", "shared 100m, group g, on b"),
    ];
    for (name, text) in pods {
        snapshot.pods.insert(name.into(), pod("default", name, text));
    }
    let outcome = plan(&snapshot, &Plan::default(), 0);
    assert!(outcome.unplaced.is_empty(), "{:?}", outcome.unplaced);
    assert_eq!(check(&snapshot, &Plan::default(), &outcome.plan), []);
    (snapshot, outcome.plan)
}

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn placement<'p>(plan: &'p mut Plan, pod: &str) -> &'p mut Placement {
    plan.placements.get_mut(pod).unwrap()
}

/// Breaks the first plan; the checker must name what `is_it` recognises.
fn broken(break_it: impl FnOnce(&mut Snapshot, &mut Plan), is_it: impl Fn(&Violation) -> bool) {
    let (mut snapshot, mut plan) = world();
    break_it(&mut snapshot, &mut plan);
    let found = check(&snapshot, &Plan::default(), &plan);
    assert!(found.iter().any(is_it), "found only {found:?}");
}

/// Breaks a successor of the first plan.
fn broken_next(break_it: impl FnOnce(&mut Snapshot, &mut Plan), is_it: impl Fn(&Violation) -> bool) {
    let (mut snapshot, current) = world();
    let mut next = Plan {
        id: current.id + 1,
        parent: current.id,
        ..current.clone()
    };
    assert_eq!(check(&snapshot, &current, &next), []);
    break_it(&mut snapshot, &mut next);
    let found = check(&snapshot, &current, &next);
    assert!(found.iter().any(is_it), "found only {found:?}");
}

#[test]
fn lineage() {
    broken(
        |_, plan| plan.parent = 5,
        |v| matches!(v, Violation::Lineage { .. }),
    );
    broken(|_, plan| plan.id = 0, |v| matches!(v, Violation::Lineage { .. }));
}

#[test]
fn too_many_pods() {
    broken(
        |snapshot, _| snapshot.nodes.get_mut("a").unwrap().max_pods = Some(3),
        |v| {
            matches!(
                v,
                Violation::TooManyPods {
                    pods: 4,
                    max_pods: 3,
                    ..
                }
            )
        },
    );
}

#[test]
fn two_owners() {
    broken(
        |_, plan| {
            let theirs = placement(plan, "full").containers[0].cpus.clone();
            placement(plan, "any").containers[0].cpus = theirs;
        },
        |v| matches!(v, Violation::TwoOwners { owners, .. } if owners == &["any", "full"]),
    );
}

#[test]
fn a_holder_is_an_owner() {
    broken(
        |snapshot, plan| {
            let gone = held(placement(plan, "any"));
            snapshot
                .nodes
                .get_mut("a")
                .unwrap()
                .held
                .insert("gone".into(), gone);
        },
        |v| matches!(v, Violation::TwoOwners { owners, .. } if owners == &["any", "gone"]),
    );
}

#[test]
fn reserved() {
    let with_reserved =
        |_: &mut Snapshot, plan: &mut Plan| placement(plan, "any").containers[0].cpus = cpus("0,8");
    broken(with_reserved, |v| matches!(v, Violation::Reserved { .. }));
}

#[test]
fn not_online() {
    let beyond =
        |_: &mut Snapshot, plan: &mut Plan| placement(plan, "any").containers[0].cpus = cpus("16-17");
    broken(beyond, |v| matches!(v, Violation::NotOnline { .. }));
}

#[test]
fn wrong_pool() {
    let add = |_: &mut Snapshot, plan: &mut Plan| plan.shared_pools.get_mut("a").unwrap().insert(63);
    broken(add, |v| matches!(v, Violation::WrongPool { .. }));
    let forget = |_: &mut Snapshot, plan: &mut Plan| drop(plan.shared_pools.remove("b"));
    broken(forget, |v| matches!(v, Violation::WrongPool { .. }));
    // The idle sibling of the odd pod's core is not for the pool.
    broken(
        |_, plan| {
            let cpu = placement(plan, "odd").containers[0].cpus.iter().next().unwrap();
            plan.shared_pools.get_mut("a").unwrap().insert((cpu + 8) % 16);
        },
        |v| matches!(v, Violation::WrongPool { .. }),
    );
}

#[test]
fn pool_too_small() {
    broken(
        |snapshot, plan| {
            let cpu = CpuRequest::Shared {
                request_milli: 64_000,
                limit_milli: None,
            };
            snapshot.pods.get_mut("web").unwrap().containers[0].cpu = cpu;
            placement(plan, "web").containers[0].cpu = cpu;
        },
        |v| matches!(v, Violation::PoolTooSmall { .. }),
    );
}

#[test]
fn split_core() {
    broken(
        |_, plan| {
            let cpu = placement(plan, "odd").containers[0].cpus.iter().next().unwrap();
            placement(plan, "any").containers[0].cpus.insert((cpu + 8) % 16);
        },
        |v| matches!(v, Violation::SplitCore { pod, other, .. } if pod == "odd" && other == "any"),
    );
}

#[test]
fn wrong_size() {
    broken(
        |_, plan| {
            let cpus = &mut placement(plan, "any").containers[0].cpus;
            let last = cpus.iter().next_back().unwrap();
            cpus.remove(last);
        },
        |v| matches!(v, Violation::WrongSize { pod, .. } if pod == "any"),
    );
    broken(
        |_, plan| placement(plan, "web").containers[0].memory_bytes.extend([(1, 5)]),
        |v| matches!(v, Violation::WrongSize { pod, .. } if pod == "web"),
    );
    broken(
        |_, plan| placement(plan, "full").containers[0].hugepages.clear(),
        |v| matches!(v, Violation::WrongSize { pod, .. } if pod == "full"),
    );
    broken(
        |_, plan| {
            let extra = placement(plan, "web").containers[0].clone();
            placement(plan, "web").containers.push(ContainerPlacement {
                name: "extra".into(),
                ..extra
            });
        },
        |v| matches!(v, Violation::WrongSize { pod, .. } if pod == "web"),
    );
}

#[test]
fn numa_policy() {
    broken(
        |_, plan| {
            let memory = &mut placement(plan, "full").containers[0].memory_bytes;
            *memory = [(0, 512 << 20), (1, 512 << 20)].into();
        },
        |v| matches!(v, Violation::NumaPolicy { pod, .. } if pod == "full"),
    );
}

#[test]
fn memory_outside() {
    broken(
        |_, plan| placement(plan, "web").numa_nodes.clear(),
        |v| matches!(v, Violation::MemoryOutside { pod, .. } if pod == "web"),
    );
}

#[test]
fn memory() {
    broken(
        |snapshot, plan| {
            snapshot.pods.get_mut("web").unwrap().containers[0].memory_bytes = 7 << 30;
            placement(plan, "web").containers[0].memory_bytes = [(0, 7 << 30)].into();
        },
        |v| matches!(v, Violation::Memory { numa: 0, .. }),
    );
    broken(
        |snapshot, _| {
            let held = Held {
                memory_bytes: 7 << 30,
                ..Held::default()
            };
            snapshot
                .nodes
                .get_mut("a")
                .unwrap()
                .held
                .insert("gone".into(), held);
        },
        |v| matches!(v, Violation::Memory { .. }),
    );
    broken(
        |snapshot, _| snapshot.nodes.get_mut("a").unwrap().reserved_memory_bytes = 16 << 30,
        |v| matches!(v, Violation::Memory { .. }),
    );
}

#[test]
fn hugepages() {
    broken(
        |snapshot, plan| {
            let pages = &mut snapshot.pods.get_mut("full").unwrap().containers[0].hugepages;
            pages.insert(1 << 30, 3 << 30);
            for pages in placement(plan, "full").containers[0].hugepages.values_mut() {
                pages.insert(1 << 30, 3 << 30);
            }
        },
        |v| matches!(v, Violation::Hugepages { .. }),
    );
}

#[test]
fn storage() {
    broken(
        |snapshot, plan| {
            snapshot.nodes.get_mut("a").unwrap().storage_bytes = Some(1 << 30);
            snapshot.pods.get_mut("web").unwrap().containers[0].storage_bytes = 2 << 30;
            placement(plan, "web").containers[0].storage_bytes = 2 << 30;
        },
        |v| matches!(v, Violation::Storage { granted_bytes, .. } if *granted_bytes == 2 << 30),
    );
    broken(
        |snapshot, _| snapshot.pods.get_mut("web").unwrap().containers[0].storage_bytes = 1,
        |v| matches!(v, Violation::WrongSize { pod, .. } if pod == "web"),
    );
    broken(
        |snapshot, _| snapshot.nodes.get_mut("a").unwrap().disk_pressure = true,
        |v| matches!(v, Violation::NotSchedulable { .. }),
    );
}

#[test]
fn a_pod_that_is_not_where_its_volumes_are() {
    let volume = |key: &str, node: Option<&str>, exclusive| VolumeRequest {
        key: key.to_owned(),
        node: node.map(str::to_owned),
        exclusive,
        ..VolumeRequest::default()
    };
    let found = |v: &Violation| matches!(v, Violation::WrongNode { pod, .. } if pod == "any");
    let asks = |snapshot: &mut Snapshot, pod: &str, volume| {
        snapshot.pods.get_mut(pod).unwrap().volumes.push(volume);
    };
    broken(|s, _| asks(s, "any", volume("v", Some("b"), false)), found);
    let apart = |s: &mut Snapshot, _: &mut Plan| {
        asks(s, "any", volume("v", None, false));
        asks(s, "g1", volume("v", None, false));
    };
    broken(apart, found);
    let both = |s: &mut Snapshot, _: &mut Plan| {
        asks(s, "any", volume("v", None, true));
        asks(s, "odd", volume("v", None, true));
    };
    broken(both, found);
    let lacks = |s: &mut Snapshot, _: &mut Plan| {
        s.pods.get_mut("any").unwrap().obstacle = Some("nothing is there".to_owned());
    };
    broken(lacks, found);
}

#[test]
fn wrong_node() {
    let to_b = |_: &mut Snapshot, plan: &mut Plan| placement(plan, "web").node = "b".into();
    broken(
        to_b,
        |v| matches!(v, Violation::WrongNode { pod, .. } if pod == "web"),
    );
    let bound = |_: &mut Snapshot, plan: &mut Plan| placement(plan, "any").node = "b".into();
    broken(
        bound,
        |v| matches!(v, Violation::WrongNode { pod, .. } if pod == "any"),
    );
    let nowhere = |_: &mut Snapshot, plan: &mut Plan| placement(plan, "any").node = "z".into();
    broken(
        nowhere,
        |v| matches!(v, Violation::WrongNode { pod, .. } if pod == "any"),
    );
}

#[test]
fn not_schedulable() {
    broken(
        |snapshot, _| snapshot.nodes.get_mut("a").unwrap().schedulable = false,
        |v| matches!(v, Violation::NotSchedulable { .. }),
    );
}

#[test]
fn anti_affinity() {
    let together = |_: &mut Snapshot, plan: &mut Plan| placement(plan, "web2").node = "a".into();
    broken(together, |v| matches!(v, Violation::AntiAffinity { .. }));
}

#[test]
fn partial_group() {
    broken(
        |_, plan| drop(plan.placements.remove("g2")),
        |v| matches!(v, Violation::PartialGroup { missing, .. } if missing == "g2"),
    );
}

#[test]
fn moved() {
    let away = |_: &mut Snapshot, plan: &mut Plan| placement(plan, "any").node = "b".into();
    broken_next(away, |v| matches!(v, Violation::Moved { .. }));
}

#[test]
fn lost() {
    let drop_it = |_: &mut Snapshot, plan: &mut Plan| drop(plan.placements.remove("any"));
    broken_next(drop_it, |v| matches!(v, Violation::Lost { .. }));
}

#[test]
fn unknown() {
    let delete = |snapshot: &mut Snapshot, _: &mut Plan| drop(snapshot.pods.remove("any"));
    broken_next(delete, |v| matches!(v, Violation::Unknown { .. }));
}

#[test]
fn pending_changed() {
    broken_next(
        |_, plan| {
            let pending = placement(plan, "any");
            pending.resize_pending = true;
            pending.containers[0].cpus = cpus("15");
        },
        |v| matches!(v, Violation::PendingChanged { .. }),
    );
}

#[test]
fn shuffled() {
    let swap = |_: &mut Snapshot, plan: &mut Plan| placement(plan, "any").containers[0].cpus = cpus("14-15");
    broken_next(swap, |v| matches!(v, Violation::Shuffled { .. }));
}
