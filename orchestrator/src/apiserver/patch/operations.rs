//! JSON patch (RFC 6902), one operation after the other, within bounds.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::super::error::ApiError;
use super::super::limits::PatchLimits;
use super::super::measure;

/// Applies the operations; on an error the object is left half done.
pub(super) fn apply(object: &mut Value, patch: &Patch, limits: &PatchLimits) -> Result<(), ApiError> {
    let count = patch.0.len();
    if count > limits.operations {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {}, got {count}",
            limits.operations
        );
        return Err(ApiError::too_large(message));
    }
    let mut copied = 0_usize;
    for (i, operation) in patch.0.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied = copied.saturating_add(object.pointer(copy.from.as_str()).map_or(0, measure::bytes));
            if copied > limits.copied_bytes {
                let message = format!(
                    "operation {i} of the JSON patch: the copies are larger than {} bytes together",
                    limits.copied_bytes
                );
                return Err(ApiError::too_large(message));
            }
        }
        if made_depth(object, operation, limits.depth) > limits.depth {
            let message = format!(
                "operation {i} of the JSON patch: {}",
                measure::Excess::Depth(limits.depth)
            );
            return Err(ApiError::too_large(message));
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|e| {
            ApiError::bad_request(format!(
                "operation {i} of the JSON patch, path {}: {}",
                e.path, e.kind
            ))
        })?;
    }
    Ok(())
}

/// The nesting at the place that an operation writes.
fn made_depth(object: &Value, operation: &PatchOperation, most: usize) -> usize {
    let value = match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Move(move_) => object.pointer(move_.from.as_str()),
        PatchOperation::Copy(copy) => object.pointer(copy.from.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    let above = operation.path().as_str().matches('/').count();
    value.map_or(0, |value| {
        above.saturating_add(measure::depth(value, most.saturating_add(1)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::limits::Limits;
    use super::*;

    fn after(mut object: Value, patch: Value) -> Result<Value, u16> {
        let patch = serde_json::from_value(patch).unwrap();
        apply(&mut object, &patch, &Limits::default().patch).map_err(|e| e.code.as_u16())?;
        Ok(object)
    }

    #[test]
    fn operations_follow_each_other() {
        let patch = json!([
            {"op": "test", "path": "/a", "value": 1},
            {"op": "add", "path": "/b", "value": {"c": [1]}},
            {"op": "copy", "from": "/b/c", "path": "/d"},
            {"op": "move", "from": "/a", "path": "/b/a"},
            {"op": "remove", "path": "/b/c"},
        ]);
        assert_eq!(
            after(json!({"a": 1}), patch),
            Ok(json!({"b": {"a": 1}, "d": [1]}))
        );
        assert_eq!(
            after(json!({}), json!([{"op": "remove", "path": "/none"}])),
            Err(400)
        );
    }

    #[test]
    fn copies_that_double_end_early() {
        let copies = |from: &str, path: &str| vec![json!({"op": "copy", "from": from, "path": path}); 120];
        let wide = json!({"data": ["x".repeat(1000)]});
        assert_eq!(after(wide, copies("/data", "/data/-").into()), Err(413));
        // A hundred levels, however small: the next reader could not go down so far.
        let deep = after(json!({"data": {"a": {}}}), copies("/data", "/data/a").into());
        assert_eq!(deep, Err(413));
        let many = vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001];
        assert_eq!(after(json!({"a": 1}), many.into()), Err(413));
    }
}
