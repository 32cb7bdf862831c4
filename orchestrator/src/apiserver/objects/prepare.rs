//! Input to object: decoded, defaulted, validated; once, on the way in.

use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::measure;
use super::meta;
use super::{FieldValidation, Objects, WriteOptions};
use crate::kinds::{Context, FieldError, Kind, codec, named, unknown_fields};

impl Objects {
    /// Decodes; what the type does not know is refused or reported.
    pub(super) fn decode(
        &self,
        kind: &Kind,
        mut input: Value,
        options: WriteOptions,
        warnings: &mut Vec<String>,
    ) -> Result<Value, ApiError> {
        // A JSON patch may replace the whole.
        if !input.is_object() {
            return Err(ApiError::bad_request(
                "the object is no longer one: it must be a JSON object",
            ));
        }
        measure::check(&input, &self.limits).map_err(|e| ApiError::too_large(e.to_string()))?;
        let api_version = kind.api_version();
        for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", kind.kind)] {
            match input.get(field).and_then(Value::as_str) {
                None | Some("") => input[field] = json!(wanted),
                Some(found) if found == wanted => {}
                Some(found) => {
                    return Err(ApiError::bad_request(format!(
                        "{field} {found:?} in the body does not fit the URL, which is for {wanted:?}"
                    )));
                }
            }
        }
        let mut known = (kind.decode)(&input).map_err(|e| {
            let message = format!(
                "{} in version {api_version:?} cannot be handled as a {}: ",
                kind.kind, kind.kind
            );
            ApiError::bad_request(message + &format!("strict decoding error: {e}"))
        })?;
        prune(&mut known);
        if options.validation != FieldValidation::Ignore {
            let unknown: Vec<_> = unknown_fields(&input, &known)
                .iter()
                .map(|f| format!("unknown field {f:?}"))
                .collect();
            if options.validation == FieldValidation::Strict && !unknown.is_empty() {
                return Err(ApiError::bad_request(format!(
                    "strict decoding error: {}",
                    unknown.join(", ")
                )));
            }
            warnings.extend(unknown);
            if !options.system {
                let idle = (kind.without_effect)(&known);
                warnings.extend(
                    idle.iter()
                        .map(|field| format!("{field} has no effect in Gantry")),
                );
            }
        }
        Ok(known)
    }

    /// Everything that must hold before an object is written.
    pub(super) async fn validate(
        &self,
        kind: &Kind,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !self.limits.rules {
            return Ok(());
        }
        let mut errors = Vec::new();
        meta::validate(kind, new, &mut errors);
        let context = self.context(kind, new).await?;
        (kind.validate)(new, old, &context, &mut errors);
        if let Some(old) = old.filter(|_| !errors.is_empty()) {
            // A rule that is younger than the object does not stand in the way of other changes.
            let mut known = Vec::new();
            meta::validate(kind, old, &mut known);
            (kind.validate)(old, Some(old), &context, &mut known);
            errors.retain(|e| !known.contains(e) || e.value_in(new) != e.value_in(old));
        }
        reject(kind, new, &errors)
    }

    async fn context(&self, kind: &Kind, object: &Value) -> Result<Context, ApiError> {
        let mut context = Context::default();
        let row = named("NfPackage").expect("the table has NfPackage");
        for (package, version) in (kind.packages)(object) {
            if let Some(found) = self
                .store
                .get(&row.key("", &format!("{package}-{version}")))
                .await?
                && let Ok(spec) = serde_json::from_value(codec::decode(&found)["spec"].take())
            {
                context.packages.insert((package, version), spec);
            }
        }
        Ok(context)
    }
}

pub(super) fn reject(kind: &Kind, object: &Value, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(kind, meta::text(object, "name"), errors))
    }
}

/// Drops nulls, which types of Kubernetes never write and ours may. In the values of a package and of a function they say something.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            let fields = fields.iter_mut().filter(|(name, _)| *name != "values");
            fields.for_each(|(_, v)| prune(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_go_and_stay_where_they_are_a_users_values() {
        let values = json!({"nothing": null, "list": [{"nothing": null}]});
        let mut object = json!({"spec": {"values": values, "group": null, "needs": [{"group": null}]}});
        prune(&mut object);
        assert_eq!(object, json!({"spec": {"values": values, "needs": [{}]}}));
    }
}
