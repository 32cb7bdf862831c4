//! Deletion: at once, or marked until nothing holds the object any more.

use serde_json::{Value, json};

use super::super::error::ApiError;
use super::{Objects, meta, update};
use crate::kinds::{Kind, at, codec, grace_seconds};
use crate::store::{Compare, StoreError, Txn};

/// Attempts when others write the same object all the time.
const ATTEMPTS: usize = 16;

/// How an object is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that a pod has; `None` takes its own, 0 is at once.
    pub grace_period_seconds: Option<i64>,
    /// Only this one.
    pub uid: Option<String>,
    /// Only this version of it.
    pub resource_version: Option<String>,
    /// Everything but the write.
    pub dry_run: bool,
}

/// What came of it. Holds the object as it was last.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone.
    Gone(Value),
    /// It is marked: finalizers, or a pod that its node has to stop first.
    Marked(Value),
}

/// Namespaces that are always there, as in Kubernetes.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

impl Objects {
    /// Deletes an object. 404 if absent, 409 if a precondition does not hold.
    pub async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let key = kind.key(namespace, name);
        for _ in 0..ATTEMPTS {
            let found = self
                .store
                .get(&key)
                .await?
                .ok_or_else(|| ApiError::not_found(kind, name))?;
            let old = codec::decode(&found);
            check(kind, name, &old, options)?;
            let mut object = mark(kind, &old, options);
            let gone = update::is_done(kind, &object);
            if options.dry_run {
                return Ok(if gone {
                    Deleted::Gone(object)
                } else {
                    Deleted::Marked(object)
                });
            }
            if !gone && object == old {
                return Ok(Deleted::Marked(old));
            }
            let mut txn = Txn::default().when(&key, Compare::At(found.mod_revision));
            txn = if gone {
                txn.delete(&key)
            } else {
                txn.put(&key, codec::encode(&object))
            };
            match self.store.txn(txn).await {
                Ok(commit) => {
                    codec::set_version(&mut object, commit.revision);
                    return Ok(if gone {
                        Deleted::Gone(object)
                    } else {
                        Deleted::Marked(object)
                    });
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::conflict(
            kind,
            name,
            "the object is being modified all the time; try again",
        ))
    }

    /// Removes a namespace that is marked and empty. True if it is gone.
    pub async fn finish_namespace(&self, kind: &Kind, name: &str) -> Result<bool, ApiError> {
        let key = kind.key("", name);
        let Some(found) = self.store.get(&key).await? else {
            return Ok(true);
        };
        let object = codec::decode(&found);
        if !meta::is_going(&object) || meta::has_finalizers(&object) {
            return Ok(false);
        }
        Ok(self
            .store
            .delete(&key, Compare::At(found.mod_revision))
            .await
            .is_ok())
    }
}

fn check(kind: &Kind, name: &str, old: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    if kind.kind == "Namespace" && IMMORTAL.contains(&name) {
        return Err(ApiError::forbidden_object(
            kind,
            name,
            "this namespace may not be deleted",
        ));
    }
    for (field, wanted) in [
        ("uid", &options.uid),
        ("resourceVersion", &options.resource_version),
    ] {
        let found = meta::text(old, field);
        if wanted.as_ref().is_some_and(|wanted| wanted != found) {
            let why = format!("Precondition failed: {field} in precondition is not {found}");
            return Err(ApiError::conflict(kind, name, &why));
        }
    }
    Ok(())
}

/// The object with its deletion begun.
fn mark(kind: &Kind, old: &Value, options: &DeleteOptions) -> Value {
    let mut object = old.clone();
    let own = at(old, "/spec/terminationGracePeriodSeconds")
        .as_i64()
        .unwrap_or(30);
    // A pod that no node runs has nobody to wait for.
    let idle = kind.graceful
        && (at(old, "/spec/nodeName").as_str().unwrap_or_default().is_empty()
            || ["Succeeded", "Failed"].contains(&at(old, "/status/phase").as_str().unwrap_or_default()));
    let asked = grace_seconds(options.grace_period_seconds.unwrap_or(own));
    let grace = if !kind.graceful || idle { 0 } else { asked };
    let before = at(old, "/metadata/deletionGracePeriodSeconds").as_i64();
    let metadata = meta::metadata(&mut object);
    if !metadata.contains_key("deletionTimestamp") {
        metadata.insert("deletionTimestamp".to_owned(), json!(meta::now()));
    }
    // A later request may shorten the grace, never lengthen it.
    metadata.insert(
        "deletionGracePeriodSeconds".to_owned(),
        json!(before.map_or(grace, |b| b.min(grace))),
    );
    if kind.kind == "Namespace" {
        object["status"]["phase"] = json!("Terminating");
    }
    object
}
