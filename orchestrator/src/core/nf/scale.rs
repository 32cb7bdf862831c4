//! How many pods, of which revision and size; who goes first.

use std::cmp::Reverse;
use std::sync::Arc;

use gantry_api::{DrainPhase, labels};
use gantry_catalog::{ResizeClass, UpgradeStrategy};
use k8s_openapi::api::core::v1::Pod;

use super::super::world::{Flaw, Key, Work};
use super::super::{births, meta, pods, quarantine};
use super::{Blueprint, identity, is_sized_as_asked, template};

/// The pods of a function by what they are good for.
#[derive(Default)]
struct Crew {
    /// Current revision and size, taking work.
    current: Vec<Arc<Pod>>,
    /// Evicted, or of another revision (or a size that cannot be changed in place), taking work.
    outdated: Vec<Arc<Pod>>,
    /// Current, could be called back from their drain.
    recallable: Vec<Arc<Pod>>,
    /// Draining or stopping, those that could be called back included, and those that this pass has seen go.
    leaving: usize,
}

impl Crew {
    /// How many of those that are missing may come where none comes before another has gone: who is called back has not gone.
    fn room_of_gone(&self, missing: usize) -> usize {
        missing.min(self.recallable.len() + missing.saturating_sub(self.leaving))
    }
}

/// One step towards the number, revision and size of pods that is asked.
pub(super) fn run(work: &mut Work<'_>, blueprint: &Blueprint) {
    let wanted = template::pod(blueprint, 0);
    clear(work, blueprint);
    resize_in_place(work, blueprint, &wanted);
    let crew = muster(work, blueprint);
    // One that cannot be read may run: nothing is made in its place.
    let unreadable = quarantine::owned(work, "Pod", &blueprint.function.metadata);
    let want = (blueprint.function.spec.replicas as usize).saturating_sub(unreadable);
    let total = crew.current.len() + crew.outdated.len();
    if crew.outdated.is_empty() {
        if total < want {
            let missing = want - total;
            let room = match blueprint.package.spec.upgrade.strategy {
                UpgradeStrategy::Surge => missing,
                UpgradeStrategy::Replace => crew.room_of_gone(missing),
            };
            add(work, blueprint, &crew, room);
        } else {
            let mut victims = crew.current.clone();
            victims.sort_by_key(|p| drain_cost(work, p, false));
            let most = work.limits.pods_a_pass;
            let surplus = victims.iter().take(total - want);
            surplus.take(most).for_each(|p| leave(work, p));
        }
        return;
    }
    match blueprint.package.spec.upgrade.strategy {
        UpgradeStrategy::Surge => surge(work, blueprint, &crew, want),
        UpgradeStrategy::Replace => replace(work, blueprint, &crew, want),
    }
}

/// Instances run for ever: one that has ended (its node has evicted it) goes, and another comes.
fn clear(work: &mut Work<'_>, blueprint: &Blueprint) {
    for pod in work.pods_of(&blueprint.function.metadata) {
        if pods::is_over(&pod) && !pods::is_stopping(&pod) {
            work.retire::<Pod>(&Key::of(&pod.metadata));
        }
    }
}

fn muster(work: &Work<'_>, blueprint: &Blueprint) -> Crew {
    let function = &blueprint.function.metadata;
    let before = work.before.pods_in(meta::namespace(function));
    let went = |pod: &&Arc<Pod>| {
        let key = Key::of(&pod.metadata);
        meta::controls(function, &pod.metadata) && !work.objects.pods.contains_key(&key)
    };
    let mut crew = Crew {
        leaving: before.filter(went).count(),
        ..Crew::default()
    };
    for pod in work.pods_of(function) {
        let current = is_current(blueprint, &pod);
        match pods::drain(&pod) {
            _ if pods::is_stopping(&pod) => crew.leaving += 1,
            Some(state) => {
                crew.leaving += 1;
                if current && state.phase == DrainPhase::Draining {
                    crew.recallable.push(pod);
                }
            }
            None if current => crew.current.push(pod),
            None => crew.outdated.push(pod),
        }
    }
    crew
}

/// Not evicted, of the current revision, and of the size that the function asks for: or resized by itself since it was given that.
fn is_current(blueprint: &Blueprint, pod: &Pod) -> bool {
    meta::annotation(&pod.metadata, labels::EVICT).is_none()
        && meta::label(&pod.metadata, labels::REVISION) == Some(&blueprint.revision)
        && is_sized_as_asked(&blueprint.function, pod)
}

/// New pods before old ones: never fewer ready than asked, never more than one above.
fn surge(work: &mut Work<'_>, blueprint: &Blueprint, crew: &Crew, want: usize) {
    let mut total = crew.current.len() + crew.outdated.len();
    let mut ready = crew
        .current
        .iter()
        .chain(&crew.outdated)
        .filter(|p| pods::is_ready(p))
        .count();
    let mut victims = crew.outdated.clone();
    victims.sort_by_key(|p| drain_cost(work, p, true));
    for victim in victims {
        let spare = !pods::is_ready(&victim) || ready > want;
        if total <= want || !spare {
            break;
        }
        ready -= usize::from(pods::is_ready(&victim));
        total -= 1;
        leave(work, &victim);
    }
    let room = (want + 1).saturating_sub(total);
    add(
        work,
        blueprint,
        crew,
        room.min(want.saturating_sub(crew.current.len())),
    );
}

/// Old pods before new ones: never more than asked, one at a time.
fn replace(work: &mut Work<'_>, blueprint: &Blueprint, crew: &Crew, want: usize) {
    let total = crew.current.len() + crew.outdated.len();
    let room = want.saturating_sub(total + crew.leaving);
    if room > 0 {
        add(
            work,
            blueprint,
            crew,
            room.min(want.saturating_sub(crew.current.len())),
        );
    } else if total > want || (crew.leaving == 0 && crew.current.iter().all(|p| pods::is_ready(p))) {
        let victim = crew.outdated.iter().min_by_key(|p| drain_cost(work, p, true));
        if let Some(victim) = victim.cloned() {
            leave(work, &victim);
        }
    }
}

/// Calls pods back from their drain, then makes new ones.
fn add(work: &mut Work<'_>, blueprint: &Blueprint, crew: &Crew, count: usize) {
    for pod in crew.recallable.iter().take(count) {
        if let Some(pod) = work.edit::<Pod>(&Key::of(&pod.metadata)) {
            pods::set_drain(pod, None);
        }
    }
    let function = &blueprint.function.metadata;
    let missing = count.saturating_sub(crew.recallable.len());
    let waiting: Vec<Arc<Pod>> = crew.current.iter().chain(&crew.outdated).cloned().collect();
    let sample = template::pod(blueprint, 0);
    let allowance = births::allowance(work, function, &waiting, missing, &sample);
    for _ in 0..allowance.now {
        let index = identity::free(work, function);
        work.create(template::pod(blueprint, index));
    }
    if let Some(why) = allowance.held_back {
        work.flaws.insert(
            Key::of(function),
            Flaw::new(births::CONDITION, why.reason, why.message),
        );
    }
}

fn leave(work: &mut Work<'_>, pod: &Pod) {
    let (agents, now_ms) = (work.agents, work.now_ms);
    if let Some(pod) = work.edit::<Pod>(&Key::of(&pod.metadata)) {
        pods::begin_drain(pod, agents, now_ms);
    }
}

/// Less goes first: not ready, of an old revision, few sessions, young, of a high number.
fn drain_cost(
    work: &Work<'_>,
    pod: &Pod,
    outdated: bool,
) -> (bool, bool, u64, Reverse<u64>, Reverse<Option<u32>>) {
    let born = pod.metadata.creation_timestamp.as_ref().map_or(0, meta::millis);
    // Unknown is not none: who counts no sessions is equal in this to its like.
    let sessions = pods::sessions(pod, work.agents).unwrap_or(u64::MAX);
    (
        pods::is_ready(pod),
        !outdated,
        sessions,
        Reverse(born),
        Reverse(identity::index(pod)),
    )
}

/// Gives pods of the current revision the size that is asked, live, as far as the package can take it.
fn resize_in_place(work: &mut Work<'_>, blueprint: &Blueprint, wanted: &Pod) {
    let classes = blueprint.package.spec.resize;
    for pod in work.pods_of(&blueprint.function.metadata) {
        let same_revision = meta::label(&pod.metadata, labels::REVISION) == Some(&blueprint.revision);
        if !same_revision || pods::is_leaving(&pod) {
            continue;
        }
        if is_sized_as_asked(&blueprint.function, &pod) {
            continue;
        }
        let key = Key::of(&pod.metadata);
        let (cpu, memory) = changes(&pod, wanted);
        let by_hand = |class: ResizeClass, changes: bool| changes && class != ResizeClass::Elastic;
        if by_hand(classes.cpu, cpu) || by_hand(classes.memory, memory) {
            if [classes.cpu, classes.memory].contains(&ResizeClass::Cooperative) {
                let hint = "its package asks to be told before a resize, which is not supported yet: instances are replaced and drained instead";
                work.hints
                    .insert(Key::of(&blueprint.function.metadata), hint.to_owned());
            }
            continue;
        }
        let Some(pod) = work.edit::<Pod>(&key) else {
            continue;
        };
        let sizes = template::sizes(wanted);
        pod.metadata.generation = Some(pod.metadata.generation.unwrap_or(1) + 1);
        for container in pod.spec.iter_mut().flat_map(|s| &mut s.containers) {
            if let Some(size) = sizes.get(&container.name) {
                container.resources.clone_from(size);
            }
        }
        let extras = template::extras(blueprint, identity::index(pod));
        meta::annotate(&mut pod.metadata, labels::EXTRAS, Some(extras));
        let sized_by = meta::annotation(&wanted.metadata, pods::SIZED_BY).map(str::to_owned);
        meta::annotate(&mut pod.metadata, pods::SIZED_BY, sized_by);
    }
}

/// Whether CPU and whether memory differ.
fn changes(pod: &Pod, wanted: &Pod) -> (bool, bool) {
    let pick = |pod: &Pod, cpu: bool| -> Vec<_> {
        let sizes = template::sizes(pod).into_values().flatten();
        let quantities = sizes.flat_map(|r| [r.requests, r.limits]).flatten();
        quantities
            .map(|q| {
                q.into_iter()
                    .filter(|(k, _)| (k == "cpu") == cpu)
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let exclusive = pods::extras(pod).exclusive != pods::extras(wanted).exclusive;
    (
        exclusive || pick(pod, true) != pick(wanted, true),
        pick(pod, false) != pick(wanted, false),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::lab::Lab;
    use super::*;

    #[test]
    fn an_evicted_pod_is_replaced_first_and_is_not_called_back() {
        let mut lab = Lab::new(&["n"]);
        lab.publish("sbc", "1.0.0", json!({}));
        lab.deploy("sbc", json!({}));
        lab.settle();
        lab.run_for(2_000);
        let (name, uid) = lab.pods("sbc").into_iter().next().unwrap();
        lab.sessions.insert(uid, 3);
        let key = Key::new("default", &name);
        let pod = lab.world.objects.pods.get_mut(&key).map(Arc::make_mut).unwrap();
        meta::annotate(&mut pod.metadata, labels::EVICT, Some(String::new()));
        lab.settle();
        let is_leaving = |lab: &Lab| pods::is_leaving(&lab.world.objects.pods[&key]);
        assert!(lab.pods("sbc").len() == 2 && !is_leaving(&lab));
        lab.run_for(1_000);
        assert!(is_leaving(&lab));
        lab.change("sbc", |spec| spec.replicas = 2);
        lab.settle();
        lab.run_for(1_000);
        assert!(is_leaving(&lab) && lab.pods("sbc").len() == 3);
        lab.sessions.clear();
        lab.run_for(10_000);
        assert!(lab.pods("sbc").len() == 2 && !lab.pods("sbc").contains_key(&name));
    }
}
