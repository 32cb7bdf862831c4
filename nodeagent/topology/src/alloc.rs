//! The one allocator: which exact CPUs somebody gets.

use std::collections::{BTreeMap, BTreeSet};

use crate::pack::{self, Core};
use crate::{CpuSet, NumaId, Topology};

/// What SMT siblings of the CPUs may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smt {
    /// Whole physical cores: a core is touched only if all its CPUs are free or the wisher's own.
    Full,
    /// Any logical CPU.
    Any,
}

/// How tightly the CPUs keep together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numa {
    /// All on one NUMA node.
    Single,
    /// On as few NUMA nodes as possible.
    Prefer,
    /// Only L3 groups count.
    Any,
}

/// A wish for exclusive CPUs.
#[derive(Clone, Copy, Debug)]
pub struct CpuWish<'a> {
    /// Logical CPUs in all, the current ones included.
    pub count: u32,
    /// SMT policy. With [`Smt::Full`] and a count that is no multiple of the threads of a core, the siblings left
    /// over are not part of the result, and must not be given to anybody.
    pub smt: Smt,
    /// NUMA policy.
    pub numa: Numa,
    /// NUMA nodes that CPUs may come from.
    pub allowed: &'a BTreeSet<NumaId>,
    /// What the wisher has now. A larger count keeps all of these, a smaller one gets a subset.
    pub current: &'a CpuSet,
}

/// What one NUMA node could give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// CPUs that the wish could use there.
    pub usable: u32,
    /// Free CPUs there, those of cores that are partly in use included.
    pub free: u32,
}

/// Why a wish cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Not enough CPUs, or not enough on one NUMA node where the policy wants that.
    #[error("{missing} more CPUs wanted than there are")]
    TooFew {
        /// CPUs wanted on top of those that the wisher has and keeps.
        missing: u32,
        /// What each allowed NUMA node has.
        numa_nodes: BTreeMap<NumaId, Available>,
    },
    /// Whole cores are wanted, and siblings of these current CPUs belong to somebody else.
    #[error("siblings of CPUs {cpus} are not free")]
    SplitCores {
        /// The current CPUs in question.
        cpus: CpuSet,
    },
    /// The CPUs that must be kept are not all on allowed NUMA nodes, or not on one where the policy wants that.
    #[error("CPUs {cpus} are on other NUMA nodes than allowed")]
    WrongNuma {
        /// The current CPUs in question.
        cpus: CpuSet,
    },
}

/// Chooses CPUs for a wish out of `free` (which need not hold the wisher's current ones). Deterministic.
///
/// A first choice is a best fit: one L3 group, then one NUMA node, whole cores before fragments, and the group with
/// least room to spare, so that whole L3 groups and NUMA nodes stay free. Growth goes to siblings of the current
/// CPUs, then to their L3 groups, then to their NUMA nodes.
pub fn allocate(topology: &Topology, free: &CpuSet, wish: &CpuWish<'_>) -> Result<CpuSet, Misfit> {
    let current = wish.current.intersection(&topology.all_cpus());
    let cores = pack::cores(topology);
    if wish.smt == Smt::Full {
        refuse_split(&cores, free, &current)?;
    }
    let count = wish.count as usize;
    if count == 0 {
        return Ok(CpuSet::new());
    }
    if count < current.len() || (wish.numa == Numa::Single && count == current.len()) {
        shrink(cores, &current, wish)
    } else if current.is_empty() {
        first_choice(cores, free, wish)
    } else {
        grow(topology, cores, free, &current, wish)
    }
}

/// Current cores must be wholly free or the wisher's own.
fn refuse_split(cores: &[Core], free: &CpuSet, current: &CpuSet) -> Result<(), Misfit> {
    let ours = free.union(current);
    let split: CpuSet = cores
        .iter()
        .filter(|core| core.all.iter().any(|c| !ours.contains(*c)))
        .flat_map(|core| core.all.iter().copied().filter(|c| current.contains(*c)))
        .collect();
    if split.is_empty() {
        Ok(())
    } else {
        Err(Misfit::SplitCores { cpus: split })
    }
}

fn shrink(mut cores: Vec<Core>, current: &CpuSet, wish: &CpuWish<'_>) -> Result<CpuSet, Misfit> {
    for core in cores.iter_mut().filter(|c| wish.allowed.contains(&c.numa)) {
        core.usable = core
            .all
            .iter()
            .copied()
            .filter(|c| current.contains(*c))
            .collect();
    }
    let candidates: Vec<&Core> = cores.iter().collect();
    let count = wish.count as usize;
    let kept = match wish.numa {
        Numa::Single => pack::from_one_numa(&candidates, count),
        Numa::Prefer => pack::from_few_numa(&candidates, count),
        Numa::Any => pack::from_any_l3(&candidates, count),
    };
    // What may be kept is not enough: the rest would have to move, which is more than a shrink.
    kept.ok_or_else(|| Misfit::WrongNuma {
        cpus: current.clone(),
    })
}

fn first_choice(mut cores: Vec<Core>, free: &CpuSet, wish: &CpuWish<'_>) -> Result<CpuSet, Misfit> {
    offer(&mut cores, free, &CpuSet::new(), wish);
    let candidates: Vec<&Core> = cores.iter().collect();
    let count = wish.count as usize;
    let chosen = match wish.numa {
        Numa::Single => pack::from_one_numa(&candidates, count),
        Numa::Prefer => pack::from_few_numa(&candidates, count),
        Numa::Any => pack::from_any_l3(&candidates, count),
    };
    chosen.ok_or_else(|| too_few(&cores, free, wish, count))
}

fn grow(
    topology: &Topology,
    mut cores: Vec<Core>,
    free: &CpuSet,
    current: &CpuSet,
    wish: &CpuWish<'_>,
) -> Result<CpuSet, Misfit> {
    let at: Vec<_> = topology.cpus.iter().filter(|c| current.contains(c.id)).collect();
    let own_cores: BTreeSet<_> = at.iter().map(|c| c.core).collect();
    let own_l3: BTreeSet<_> = at.iter().map(|c| (c.numa, c.l3)).collect();
    let own_numa: BTreeSet<_> = at.iter().map(|c| c.numa).collect();
    if !own_numa.is_subset(wish.allowed) || (wish.numa == Numa::Single && own_numa.len() > 1) {
        return Err(Misfit::WrongNuma {
            cpus: current.clone(),
        });
    }
    offer(&mut cores, free, current, wish);
    if wish.numa == Numa::Single {
        cores
            .iter_mut()
            .filter(|c| !own_numa.contains(&c.numa))
            .for_each(|c| c.usable.clear());
    }
    let mut result = current.clone();
    let near: [&dyn Fn(&Core) -> bool; 4] = [
        &|c| own_cores.contains(&c.id),
        &|c| own_l3.contains(&(c.numa, c.l3)),
        &|c| own_numa.contains(&c.numa),
        &|_| true,
    ];
    for is_near in near {
        let candidates: Vec<&Core> = cores.iter().filter(|c| is_near(c)).collect();
        let step = (wish.count as usize - result.len()).min(pack::capacity(candidates.iter().copied()));
        let added = match wish.numa {
            Numa::Any => pack::from_any_l3(&candidates, step),
            Numa::Single | Numa::Prefer => pack::from_few_numa(&candidates, step),
        };
        if let Some(added) = added.filter(|_| step > 0) {
            cores
                .iter_mut()
                .for_each(|c| c.usable.retain(|cpu| !added.contains(*cpu)));
            result = result.union(&added);
        }
    }
    if result.len() == wish.count as usize {
        return Ok(result);
    }
    offer(&mut cores, free, current, wish);
    Err(too_few(&cores, free, wish, wish.count as usize - current.len()))
}

/// Marks as usable what the policies let the wisher add to what it has.
fn offer(cores: &mut [Core], free: &CpuSet, current: &CpuSet, wish: &CpuWish<'_>) {
    for core in cores {
        let ours = |cpu: &u32| free.contains(*cpu) || current.contains(*cpu);
        let open = wish.allowed.contains(&core.numa) && (wish.smt == Smt::Any || core.all.iter().all(ours));
        let addable = |cpu: &u32| open && free.contains(*cpu) && !current.contains(*cpu);
        core.usable = core.all.iter().copied().filter(addable).collect();
    }
}

fn too_few(cores: &[Core], free: &CpuSet, wish: &CpuWish<'_>, missing: usize) -> Misfit {
    let mut numa_nodes: BTreeMap<NumaId, Available> = wish
        .allowed
        .iter()
        .map(|id| (*id, Available::default()))
        .collect();
    for core in cores {
        if let Some(entry) = numa_nodes.get_mut(&core.numa) {
            let loose = core
                .all
                .iter()
                .filter(|c| free.contains(**c) && !wish.current.contains(**c))
                .count();
            entry.usable += u32::try_from(core.usable.len()).unwrap_or(u32::MAX);
            entry.free += u32::try_from(loose).unwrap_or(u32::MAX);
        }
    }
    Misfit::TooFew {
        missing: u32::try_from(missing).unwrap_or(u32::MAX),
        numa_nodes,
    }
}
