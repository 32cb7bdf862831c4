//! New objects.

use rand::Rng;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::service_ip::Choice;
use super::{Objects, WriteOptions, Written, meta};
use crate::kinds::{FieldError, Kind, codec, named};
use crate::store::{Compare, StoreError, Txn};

/// Letters of generated names: no vowels, so no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Attempts at a generated name or a service address.
const ATTEMPTS: usize = 16;

impl Objects {
    /// Writes a new object. 409 `AlreadyExists`, 404 without its namespace, 422 against the rules.
    pub async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        input: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut warnings = Vec::new();
        let mut object = self.decode(kind, input, options, &mut warnings)?;
        place(kind, namespace, &mut object)?;
        if kind.status {
            object.as_object_mut().map(|o| o.remove("status"));
        }
        (kind.default)(&mut object);
        meta::on_create(&mut object);
        let generate = meta::text(&object, "name").is_empty();
        let known = warnings.len();
        for _ in 0..ATTEMPTS {
            if generate {
                generate_name(kind, &mut object)?;
            }
            let mut attempt = object.clone();
            let address = self.assign_address(kind, &mut attempt).await?;
            self.validate(kind, &attempt, None).await?;
            warnings.truncate(known);
            self.admit(kind, &attempt, None, &mut warnings).await?;
            let again = generate || address.is_some();
            match self
                .insert(kind, namespace, &attempt, address, options.dry_run)
                .await?
            {
                Some(object) => return Ok(Written { object, warnings }),
                None if again => {}
                None => break,
            }
        }
        Err(ApiError::already_exists(kind, meta::text(&object, "name")))
    }

    /// `None` if the name or the address is taken.
    async fn insert(
        &self,
        kind: &Kind,
        namespace: &str,
        object: &Value,
        address: Option<Choice>,
        dry_run: bool,
    ) -> Result<Option<Value>, ApiError> {
        let name = meta::text(object, "name");
        let key = kind.key(namespace, name);
        let value = codec::encode(object);
        self.room.check(kind, object, value.len(), &self.limits)?;
        self.room.check_count(kind, object, &self.limits)?;
        let mut txn = Txn::default().when(&key, Compare::Absent).put(&key, value);
        let parent = named("Namespace").expect("the table has Namespace");
        let parent_key = parent.key("", namespace);
        if kind.namespaced {
            let found = self.get(parent, "", namespace).await?;
            if meta::is_going(&found) {
                let message =
                    format!("unable to create new content in namespace {namespace}: it is being terminated");
                return Err(ApiError::forbidden(message));
            }
            txn = txn.when(&parent_key, Compare::Exists);
        }
        if let Some(address) = address {
            txn = address.join(txn);
        }
        if dry_run {
            let taken = self.store.get(&key).await?.is_some();
            return Ok((!taken).then(|| object.clone()));
        }
        match self.store.txn(txn).await {
            Ok(commit) => Ok(commit
                .after
                .into_iter()
                .next()
                .flatten()
                .as_ref()
                .map(codec::decode)),
            Err(StoreError::Conflict { key: lost, .. }) if lost == parent_key && kind.namespaced => {
                Err(ApiError::not_found(parent, namespace))
            }
            // The name is taken for good; an address may be chosen again.
            Err(StoreError::Conflict { key: lost, .. }) if lost == key => {
                match meta::text(object, "generateName") {
                    "" => Err(ApiError::already_exists(kind, name)),
                    _ => Ok(None),
                }
            }
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts the object into the namespace of the URL.
fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
    let metadata = meta::metadata(object);
    if !kind.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    let found = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !["", namespace].contains(&found) {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object ({found}) does not match that of the request ({namespace})"
        )));
    }
    metadata.insert("namespace".to_owned(), json!(namespace));
    Ok(())
}

fn generate_name(kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    let base = meta::text(object, "generateName").to_owned();
    if base.is_empty() {
        let error = FieldError {
            field: "metadata.name".to_owned(),
            message: "name or generateName is required".to_owned(),
            reason: "FieldValueRequired",
        };
        return Err(ApiError::invalid(kind, "", &[error]));
    }
    let mut rng = rand::rng();
    let suffix: String = (0..5)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect();
    let base: String = base.chars().take(58).collect();
    meta::metadata(object).insert("name".to_owned(), json!(base + &suffix));
    Ok(())
}
