//! The same attack without its protection, on a Gantry of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use serde_json::json;

use super::process::{Memory, Process};
use super::{Case, Extent, Harm, Tenant, prober, table};

/// A process that has so many MiB is killed: the machine is not to be harmed.
const MOST_MIB: u64 = 2048;
/// How long harm may take to show after the attack.
const AFTER: Duration = Duration::from_secs(20);
/// An answer that takes longer is harm.
const ANSWER: Duration = Duration::from_secs(1);

/// Returns the harm that was seen, for the table.
pub(super) fn run(case: &Case, extent: Extent) -> Result<String> {
    let gantry = Gantry::new("control", false)?.without(case.protection);
    table::begin(&gantry, "10.114.0.0/16", "10.115.0.0/16")?;
    let api = Api::of(&gantry)?;
    api.make(
        "/api/v1/namespaces",
        &json!({"metadata": {"name": prober::NAMESPACE}}),
    )?;
    // Who is to be felt by others has to be large; what is let in is seen in small as well.
    let extent = match case.harm {
        Harm::Neighbours => extent,
        Harm::Told(_) | Harm::Memory(..) => Extent::Kinds,
    };
    let tenant = Tenant::new(&gantry, &api, "tenant".to_owned(), extent)?;
    let memory = |process: Process| Ok::<_, anyhow::Error>((process, Memory::of(process.pid(&gantry)?)?));
    let processes = [memory(Process::Orchestrator)?, memory(Process::Agent)?];
    let seen = std::thread::scope(|scope| {
        let attack = scope.spawn(|| (case.attack)(&tenant));
        let seen = watch(case.harm, &processes, &api, || attack.is_finished());
        tenant.stop_waiting();
        if !attack.is_finished() {
            // What was seen is enough: the attack ends, since nobody answers any more.
            processes[0].1.kill();
        }
        let told = attack.join().unwrap_or_else(|_| bail!("the attack panicked"));
        Ok::<_, anyhow::Error>((seen?, told))
    });
    match (seen?, case.harm) {
        ((Some(seen), _), _) => Ok(seen),
        ((None, told), Harm::Told(harm)) => {
            let told = told?;
            ensure!(told.contains(harm), "`{harm}` is missing in: {told}");
            Ok(format!("told: {harm}"))
        }
        ((None, told), _) => bail!("no harm was seen; the tenant was told: {told:?}"),
    }
}

/// Waits until harm is seen that is not in what the tenant is told; `None` if it does not come.
fn watch(
    harm: Harm,
    processes: &[(Process, Memory)],
    api: &Api,
    is_over: impl Fn() -> bool,
) -> Result<Option<String>> {
    let neighbour = matches!(harm, Harm::Neighbours).then(|| prober::start(api.clone()));
    let mut over_since = None;
    loop {
        for (process, memory) in processes {
            // One that has ended has no more memory.
            let now = memory.peak().unwrap_or_default();
            let grown = now.saturating_sub(memory.before);
            match harm {
                Harm::Memory(which, most) if which == *process && grown >= most => {
                    return Ok(Some(format!("{process:?}: {} -> {now} MiB", memory.before)));
                }
                _ if now > MOST_MIB => bail!("{process:?} has {now} MiB"),
                _ => {}
            }
        }
        if let Some(figures) = neighbour.as_ref().map(prober::Loop::take) {
            if let Some(wrong) = figures.wrong {
                return Ok(Some(format!("a neighbour: {wrong}")));
            }
            if figures.slowest > ANSWER {
                return Ok(Some(format!("a neighbour waits {:?}", figures.slowest)));
            }
        }
        let patience = match harm {
            Harm::Told(_) => Duration::ZERO,
            Harm::Memory(..) | Harm::Neighbours => AFTER,
        };
        if is_over() && over_since.get_or_insert_with(Instant::now).elapsed() >= patience {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
