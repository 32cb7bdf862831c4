//! Every change of a NetworkFunction is an Operation: begun when its spec changes, or what its instances are made from; followed,
//! ended with a receipt.

mod change;
mod instances;
mod progress;
mod receipt;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use gantry_api::{
    NetworkFunction, NetworkFunctionSpec, ObjectMeta, Operation, OperationKind, OperationPhase,
    OperationSpec, RevisionRecord, labels,
};

use change::Change;

use super::meta;
use super::world::{Key, Work};

/// Earlier specs kept for a rollback.
const HISTORY_KEPT: usize = 10;

/// Begins an operation for every function whose spec nobody has looked at yet. Runs before anything acts on the new spec.
pub fn begin(work: &mut Work<'_>) {
    for key in work.keys::<NetworkFunction>() {
        let Some(function) = work.get::<NetworkFunction>(&key) else {
            continue;
        };
        let generation = function.metadata.generation.unwrap_or(1);
        let leaves = function.metadata.deletion_timestamp.is_some();
        let last = latest(work, &function);
        if leaves {
            if last
                .as_ref()
                .is_none_or(|(_, o)| o.spec.kinds != [OperationKind::Undeploy])
            {
                let after = last.as_ref().map_or(0, |(_, o)| o.spec.generation) + 1;
                open(work, &function, generation.max(after), last, true);
            }
        } else if generation != function.status.observed_generation {
            open(work, &function, generation, last, false);
        }
    }
}

/// Begins an operation for a function whose instances are to be replaced though nobody changed it: its package or a peer has
/// changed. Runs before anything acts on the new revision; a change that is under way covers it.
pub fn revised(work: &mut Work<'_>, function: &NetworkFunction, revision: &str) {
    let known = &function.status.revision;
    if known.is_empty() || known == revision {
        return;
    }
    let last = latest(work, function);
    if last.as_ref().is_some_and(|(_, o)| is_running(o)) {
        return;
    }
    let change = Change {
        kinds: vec![OperationKind::Upgrade],
        asked: format!("its package or a peer changed: revision {known} -> {revision}"),
        revises: true,
    };
    let generation = function.metadata.generation.unwrap_or(1);
    let name = format!("{}-{generation}-{revision}", meta::name(&function.metadata));
    start(work, function, name, generation, last, change);
}

fn is_running(operation: &Operation) -> bool {
    operation.status.phase == OperationPhase::Running
}

type Found = (Key, Arc<Operation>);

/// The newest operation of this very function.
fn latest(work: &Work<'_>, function: &NetworkFunction) -> Option<Found> {
    let own = work.objects.operations.iter().filter(|(_, o)| is_of(o, function));
    own.max_by_key(|(_, o)| (o.spec.generation, o.status.started_at_ms))
        .map(|(k, o)| (k.clone(), o.clone()))
}

/// Looks at a spec that is new.
fn open(work: &mut Work<'_>, function: &NetworkFunction, generation: i64, last: Option<Found>, leaves: bool) {
    let before = last.as_ref().map(|(_, o)| &o.spec);
    let change = change::between(before.map(|s| &s.to), &function.spec, leaves);
    // A spec that could not be rendered is nothing to go back to.
    let was_made = before.is_some_and(|s| function.status.revision_generation >= s.generation);
    let earlier = before
        .filter(|_| change.revises && was_made)
        .map(|s| s.to.clone());
    if !change.kinds.is_empty() {
        let name = format!("{}-{generation}", meta::name(&function.metadata));
        start(work, function, name, generation, last, change);
    }
    remember(work, function, generation, earlier);
}

/// Begins an operation in place of the last one.
fn start(
    work: &mut Work<'_>,
    function: &NetworkFunction,
    operation: String,
    generation: i64,
    last: Option<Found>,
    change: Change,
) {
    let from = last.as_ref().map(|(_, o)| o.spec.to.clone());
    if let Some((key, _)) = last.filter(|(_, o)| is_running(o)) {
        let message = format!("superseded by generation {generation}");
        receipt::close(work, &key, OperationPhase::Superseded, &message);
    }
    let name = meta::name(&function.metadata);
    let key = Key::new(meta::namespace(&function.metadata), &operation);
    let metadata = ObjectMeta {
        name: Some(operation),
        namespace: function.metadata.namespace.clone(),
        labels: Some(meta::pairs(&[(labels::NF, name)])),
        annotations: Some(meta::pairs(&[(
            labels::FUNCTION_UID,
            meta::uid(&function.metadata),
        )])),
        ..Default::default()
    };
    let spec = OperationSpec {
        function: name.to_owned(),
        generation,
        kinds: change.kinds,
        asked: change.asked,
        from,
        to: function.spec.clone(),
    };
    let mut operation = Operation::new(metadata, spec);
    operation.status.started_at_ms = work.now_ms;
    receipt::baseline(work, &mut operation, function);
    insert(work, &key, operation);
}

/// An operation of an earlier function of the same name gives way.
fn insert(work: &mut Work<'_>, key: &Key, mut operation: Operation) {
    match work.get::<Operation>(key) {
        None => {
            work.create(operation);
        }
        Some(old) => {
            operation.metadata.uid.clone_from(&old.metadata.uid);
            operation
                .metadata
                .resource_version
                .clone_from(&old.metadata.resource_version);
            operation.metadata.creation_timestamp = Some(meta::time(work.now_ms));
            if let Some(slot) = work.edit::<Operation>(key) {
                *slot = operation;
            }
        }
    }
}

/// Notes in the function that its spec was seen, and what made its revision if that is to be another one.
fn remember(
    work: &mut Work<'_>,
    function: &NetworkFunction,
    generation: i64,
    earlier: Option<NetworkFunctionSpec>,
) {
    let Some(edited) = work.edit::<NetworkFunction>(&Key::of(&function.metadata)) else {
        return;
    };
    let status = &mut edited.status;
    if let Some(spec) = earlier.filter(|_| !status.revision.is_empty()) {
        let revision = status.revision.clone();
        status.history.retain(|r| r.revision != revision);
        status.history.push(RevisionRecord {
            revision,
            generation: status.revision_generation,
            spec,
        });
        let surplus = status.history.len().saturating_sub(HISTORY_KEPT);
        status.history.drain(..surplus);
    }
    if function.metadata.deletion_timestamp.is_none() {
        status.observed_generation = generation;
    }
}

/// Follows every running operation; ends those whose function is as asked.
pub fn follow(work: &mut Work<'_>) {
    for key in work.keys::<Operation>() {
        let Some(operation) = work.get::<Operation>(&key) else {
            continue;
        };
        if is_running(&operation) {
            progress::advance(work, &key, &operation);
        }
    }
}

/// The function that an operation is about, if it is still the same one.
fn function_of(work: &Work<'_>, operation: &Operation) -> Option<Arc<NetworkFunction>> {
    let key = Key::new(meta::namespace(&operation.metadata), &operation.spec.function);
    let function = work.get::<NetworkFunction>(&key)?;
    is_of(operation, &function).then_some(function)
}

/// Whether an operation is of this very function, and not of one of the same name before it, or in another namespace.
fn is_of(operation: &Operation, function: &NetworkFunction) -> bool {
    let (own, of) = (&operation.metadata, &function.metadata);
    meta::namespace(own) == meta::namespace(of)
        && meta::annotation(own, labels::FUNCTION_UID) == Some(meta::uid(of))
}
