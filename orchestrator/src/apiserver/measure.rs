//! The size of JSON, before it is parsed and after. Pure.

use serde_json::Value;

use super::limits::ObjectLimits;

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// See [`ObjectLimits::depth`].
    #[error("lists and objects are nested deeper than {0}")]
    Depth(usize),
    /// See [`ObjectLimits::values`].
    #[error("there are more than {0} values")]
    Values(usize),
    /// See [`ObjectLimits::bytes`].
    #[error("the object is larger than {0} bytes")]
    Bytes(usize),
}

/// Looks over JSON text without parsing it: depth and number of values. Text that is no JSON passes; the parser says so.
pub fn scan(text: &[u8], limits: &ObjectLimits) -> Result<(), Excess> {
    let (mut depth, mut values, mut quoted, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > limits.depth {
            return Err(Excess::Depth(limits.depth));
        }
        if values > limits.values {
            return Err(Excess::Values(limits.values));
        }
    }
    Ok(())
}

/// An object that may be stored.
pub fn check(object: &Value, limits: &ObjectLimits) -> Result<(), Excess> {
    if depth(object, limits.depth.saturating_add(1)) > limits.depth {
        return Err(Excess::Depth(limits.depth));
    }
    if bytes(object) > limits.bytes {
        return Err(Excess::Bytes(limits.bytes));
    }
    Ok(())
}

/// Levels of lists and objects; `most` if there are more.
pub fn depth(value: &Value, most: usize) -> usize {
    let inner = |deepest: usize, value| deepest.max(depth(value, most.saturating_sub(1)));
    match value {
        _ if most == 0 => 0,
        Value::Array(items) => 1 + items.iter().fold(0, inner),
        Value::Object(fields) => 1 + fields.values().fold(0, inner),
        _ => 0,
    }
}

/// About the length as JSON: characters that need escaping count as one.
pub fn bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| bytes(v) + 1).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(k, v)| k.len() + 4 + bytes(v)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_and_number_are_seen_in_the_text() {
        let limits = ObjectLimits::default();
        let scan = |text: &str| super::scan(text.as_bytes(), &limits);
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(scan(&nested(limits.depth)), Ok(()));
        assert_eq!(scan(&nested(limits.depth + 1)), Err(Excess::Depth(limits.depth)));
        let many = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert_eq!(scan(&many(limits.values - 1)), Ok(()));
        assert_eq!(scan(&many(limits.values)), Err(Excess::Values(limits.values)));
        let text = json!({"a": "[".repeat(1000) + "\\\"" + &",".repeat(limits.values)}).to_string();
        assert_eq!(scan(&text), Ok(()), "within a string");
    }

    #[test]
    fn depth_and_size_of_values() {
        assert_eq!(depth(&json!({"a": [1, {"b": 2}]}), 10), 3);
        assert_eq!(depth(&json!({"a": [1, {"b": 2}]}), 2), 2);
        let value = json!({"name": "x", "list": [1, true, null], "o": {}});
        let text = value.to_string().len();
        assert!((text..text * 2).contains(&bytes(&value)));
        let limits = ObjectLimits::default();
        let large = json!({"a": "x".repeat(limits.bytes)});
        assert_eq!(check(&large, &limits), Err(Excess::Bytes(limits.bytes)));
    }
}
