//! Changes of objects and of their sub-resources.

use serde_json::Value;

use super::super::error::ApiError;
use super::prepare::reject;
use super::{Objects, WriteOptions, Written, meta, resize};
use crate::kinds::{FieldError, Kind, at, codec};
use crate::store::{Compare, StoreError, Txn};

/// Attempts when others write the same object all the time.
const ATTEMPTS: usize = 16;

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All but the status (where that is a sub-resource).
    Main,
    /// The status only.
    Status,
    /// Resources of a pod's containers only.
    Resize,
}

impl Objects {
    /// Replaces an object (or the target part). With a resourceVersion in the metadata: only if it is still that one.
    pub async fn update(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        input: Value,
        target: Target,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        self.modify(kind, namespace, name, target, options, |_| Ok(input.clone()))
            .await
    }

    /// Changes an object by a function of what it is; again if others write at the same time.
    pub async fn modify(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        target: Target,
        options: WriteOptions,
        change: impl Fn(&Value) -> Result<Value, ApiError> + Send + Sync,
    ) -> Result<Written, ApiError> {
        let key = kind.key(namespace, name);
        let stale = || {
            ApiError::conflict(
                kind,
                name,
                "the object has been modified; please apply your changes to the latest version and try again",
            )
        };
        for _ in 0..ATTEMPTS {
            let found = self
                .store
                .get(&key)
                .await?
                .ok_or_else(|| ApiError::not_found(kind, name))?;
            let old = codec::decode(&found);
            let input = change(&old)?;
            let wanted = meta::text(&input, "resourceVersion").to_owned();
            if !["", "0", meta::text(&old, "resourceVersion")].contains(&wanted.as_str()) {
                return Err(stale());
            }
            check_identity(kind, name, &input, &old)?;
            let mut warnings = Vec::new();
            let decoded = self.decode(kind, input, options, &mut warnings)?;
            let new = merge(kind, decoded, &old, target, options)?;
            self.validate(kind, &new, Some(&old)).await?;
            self.admit(kind, &new, Some(&old), &mut warnings).await?;
            if new == old {
                return Ok(Written {
                    object: old,
                    warnings,
                });
            }
            if options.dry_run {
                return Ok(Written {
                    object: new,
                    warnings,
                });
            }
            let mut txn = Txn::default().when(&key, Compare::At(found.mod_revision));
            txn = if is_done(kind, &new) {
                txn.delete(&key)
            } else {
                let value = codec::encode(&new);
                let more = value.len().saturating_sub(found.value.len());
                if more > 0 && !options.system {
                    self.room.check(kind, &new, more, &self.limits)?;
                }
                txn.put(&key, value)
            };
            match self.store.txn(txn).await {
                Ok(commit) => {
                    let mut object = new;
                    codec::set_version(&mut object, commit.revision);
                    return Ok(Written { object, warnings });
                }
                Err(StoreError::Conflict { found: None, .. }) => return Err(ApiError::not_found(kind, name)),
                Err(StoreError::Conflict { .. }) if ["", "0"].contains(&wanted.as_str()) => {}
                Err(StoreError::Conflict { .. }) => return Err(stale()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(stale())
    }
}

/// Deletion has begun and nothing holds the object any more.
pub(super) fn is_done(kind: &Kind, object: &Value) -> bool {
    let waits = kind.graceful && at(object, "/metadata/deletionGracePeriodSeconds").as_i64() != Some(0);
    meta::is_going(object) && !meta::has_finalizers(object) && !waits && kind.kind != "Namespace"
}

fn check_identity(kind: &Kind, name: &str, input: &Value, old: &Value) -> Result<(), ApiError> {
    let given = meta::text(input, "name");
    if !["", name].contains(&given) {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(ApiError::bad_request(message));
    }
    let uid = meta::text(input, "uid");
    if !["", meta::text(old, "uid")].contains(&uid) {
        return Err(ApiError::conflict(
            kind,
            name,
            &format!("Precondition failed: UID in object meta is not {uid}"),
        ));
    }
    let namespace = meta::text(input, "namespace");
    if kind.namespaced && !["", meta::text(old, "namespace")].contains(&namespace) {
        return Err(ApiError::bad_request(
            "the namespace of the object does not match the namespace on the URL",
        ));
    }
    Ok(())
}

/// What the write makes of the old object.
fn merge(
    kind: &Kind,
    mut new: Value,
    old: &Value,
    target: Target,
    options: WriteOptions,
) -> Result<Value, ApiError> {
    match target {
        Target::Status => {
            let mut merged = old.clone();
            merged["status"] = new["status"].take();
            if kind.kind == "Pod" && !options.system {
                ends_by_itself(kind, &merged, old)?;
            }
            return Ok(merged);
        }
        Target::Resize => {
            let mut merged = resize::apply(kind, new, old)?;
            meta::on_update(&mut merged, old);
            return Ok(merged);
        }
        Target::Main => {}
    }
    if kind.status {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => drop(new.as_object_mut().map(|o| o.remove("status"))),
        }
    }
    if kind.kind == "Service" {
        keep_addresses(&mut new, old);
    }
    (kind.default)(&mut new);
    meta::on_update(&mut new, old);
    if kind.kind == "Namespace" {
        meta::set_requester(&mut new, meta::requester(old));
    }
    if kind.graceful && !options.system {
        // One of before has not the defaults that came since.
        let mut known = old.clone();
        (kind.default)(&mut known);
        frozen_spec(kind, &new, &known)?;
    }
    Ok(new)
}

/// Whether a pod has ended is for its node to say: what is believed to have ended is not run any more, and never again.
fn ends_by_itself(kind: &Kind, new: &Value, old: &Value) -> Result<(), ApiError> {
    let phase = |pod| at(pod, "/status/phase").as_str().unwrap_or_default();
    let has_ended = |pod| matches!(phase(pod), "Succeeded" | "Failed");
    if phase(new) == phase(old) || !has_ended(new) && !has_ended(old) {
        return Ok(());
    }
    let message = "only the pod's node says that it has ended: delete the pod to stop it";
    reject(
        kind,
        new,
        &[FieldError {
            field: "status.phase".to_owned(),
            message: message.to_owned(),
            reason: "FieldValueForbidden",
        }],
    )
}

/// An update that leaves the address out keeps it.
fn keep_addresses(new: &mut Value, old: &Value) {
    for field in ["clusterIP", "clusterIPs"] {
        let given = new["spec"].get(field).is_some_and(|v| v != "");
        if !given && let Some(value) = old["spec"].get(field) {
            new["spec"][field] = value.clone();
        }
    }
}

/// A pod's spec is fixed: its node runs what it was told first. Resources go through `resize`, the node through `binding`.
fn frozen_spec(kind: &Kind, new: &Value, old: &Value) -> Result<(), ApiError> {
    let strip = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        spec["tolerations"] = Value::Null;
        spec["activeDeadlineSeconds"] = Value::Null;
        spec
    };
    if strip(new) == strip(old) {
        return Ok(());
    }
    let message = "pod updates may not change fields other than tolerations and activeDeadlineSeconds: resize resources \
        through the sub-resource resize; for another image or anything else make a new pod, or change the Deployment or \
        NetworkFunction that made this one";
    reject(
        kind,
        new,
        &[FieldError {
            field: "spec".to_owned(),
            message: message.to_owned(),
            reason: "FieldValueForbidden",
        }],
    )
}
