//! Every change of a NetworkFunction is an Operation: begun when its spec changes, followed, ended with a receipt.

mod change;
mod progress;
mod receipt;

use gantry_api::{
    NetworkFunction, ObjectMeta, Operation, OperationKind, OperationPhase, OperationSpec, RevisionRecord,
    labels,
};

use super::meta;
use super::world::{Key, Work};

/// Annotation on an operation: uid of the function, since a later one may have the same name.
const FUNCTION_UID: &str = "gantry.dev/function-uid";
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

/// The newest operation of this very function.
fn latest(work: &Work<'_>, function: &NetworkFunction) -> Option<(Key, std::sync::Arc<Operation>)> {
    let uid = meta::uid(&function.metadata);
    let own = work
        .objects
        .operations
        .iter()
        .filter(|(_, o)| meta::annotation(&o.metadata, FUNCTION_UID) == Some(uid));
    own.max_by_key(|(_, o)| o.spec.generation)
        .map(|(k, o)| (k.clone(), o.clone()))
}

fn open(
    work: &mut Work<'_>,
    function: &NetworkFunction,
    generation: i64,
    last: Option<(Key, std::sync::Arc<Operation>)>,
    leaves: bool,
) {
    let before = last.as_ref().map(|(_, o)| o.spec.to.clone());
    let change = change::between(before.as_ref(), &function.spec, leaves);
    let name = meta::name(&function.metadata);
    let key = Key::new(
        meta::namespace(&function.metadata),
        &format!("{name}-{generation}"),
    );
    if let Some((key, _)) = last.filter(|(_, o)| o.status.phase == OperationPhase::Running) {
        receipt::close(
            work,
            &key,
            OperationPhase::Superseded,
            &format!("superseded by generation {generation}"),
        );
    }
    if !change.kinds.is_empty() {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: function.metadata.namespace.clone(),
            labels: Some(meta::pairs(&[(labels::NF, name)])),
            annotations: Some(meta::pairs(&[(FUNCTION_UID, meta::uid(&function.metadata))])),
            ..Default::default()
        };
        let spec = OperationSpec {
            function: name.to_owned(),
            generation,
            kinds: change.kinds,
            asked: change.asked,
            from: before.clone(),
            to: function.spec.clone(),
        };
        let mut operation = Operation::new(metadata, spec);
        operation.status.started_at_ms = work.now_ms;
        receipt::baseline(work, &mut operation, function);
        insert(work, &key, operation);
    }
    remember(work, function, generation, before, change.revises);
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

/// Notes in the function that its spec was seen, and what it was before if that made another revision.
fn remember(
    work: &mut Work<'_>,
    function: &NetworkFunction,
    generation: i64,
    before: Option<gantry_api::NetworkFunctionSpec>,
    revises: bool,
) {
    let Some(edited) = work.edit::<NetworkFunction>(&Key::of(&function.metadata)) else {
        return;
    };
    let status = &mut edited.status;
    if let (Some(spec), true, false) = (before, revises, status.revision.is_empty()) {
        let revision = status.revision.clone();
        status.history.retain(|r| r.revision != revision);
        status.history.push(RevisionRecord {
            revision,
            generation: status.observed_generation,
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
        if operation.status.phase == OperationPhase::Running {
            progress::advance(work, &key, &operation);
        }
    }
}

/// The function that an operation is about, if it is still the same one.
fn function_of(work: &Work<'_>, operation: &Operation) -> Option<std::sync::Arc<NetworkFunction>> {
    let key = Key::new(meta::namespace(&operation.metadata), &operation.spec.function);
    let function = work.get::<NetworkFunction>(&key)?;
    (meta::annotation(&operation.metadata, FUNCTION_UID) == Some(meta::uid(&function.metadata)))
        .then_some(function)
}
