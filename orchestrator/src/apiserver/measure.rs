//! The size of JSON, before it is parsed and after. Pure.

use serde_json::Value;

/// Lists and objects within each other, at most. An object is parsed again from the store, and by clients within lists and
/// events, by parsers that stop at 128: what they cannot read must not come in.
pub const DEPTH: usize = 100;
/// Values in one body, at most. Each takes up to 100 bytes in memory, the text of one as little as 2.
pub const VALUES: usize = 150_000;
/// Largest object in bytes as JSON: what etcd takes under Kubernetes.
pub const OBJECT_BYTES: usize = 1536 << 10;

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// See [`DEPTH`].
    #[error("lists and objects are nested deeper than {DEPTH}")]
    Depth,
    /// See [`VALUES`].
    #[error("there are more than {VALUES} values")]
    Values,
    /// See [`OBJECT_BYTES`].
    #[error("the object is larger than {OBJECT_BYTES} bytes")]
    Bytes,
}

/// Looks over JSON text without parsing it: depth and number of values. Text that is no JSON passes; the parser says so.
pub fn scan(text: &[u8]) -> Result<(), Excess> {
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
        if depth > DEPTH {
            return Err(Excess::Depth);
        }
        if values > VALUES {
            return Err(Excess::Values);
        }
    }
    Ok(())
}

/// An object that may be stored.
pub fn check(object: &Value) -> Result<(), Excess> {
    if depth(object, DEPTH + 1) > DEPTH {
        return Err(Excess::Depth);
    }
    if bytes(object) > OBJECT_BYTES {
        return Err(Excess::Bytes);
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
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(scan(nested(DEPTH).as_bytes()), Ok(()));
        assert_eq!(scan(nested(DEPTH + 1).as_bytes()), Err(Excess::Depth));
        let many = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert_eq!(scan(many(VALUES - 1).as_bytes()), Ok(()));
        assert_eq!(scan(many(VALUES).as_bytes()), Err(Excess::Values));
        let text = json!({"a": "[".repeat(1000) + "\\\"" + &",".repeat(VALUES)}).to_string();
        assert_eq!(scan(text.as_bytes()), Ok(()), "within a string");
    }

    #[test]
    fn depth_and_size_of_values() {
        assert_eq!(depth(&json!({"a": [1, {"b": 2}]}), 10), 3);
        assert_eq!(depth(&json!({"a": [1, {"b": 2}]}), 2), 2);
        let value = json!({"name": "x", "list": [1, true, null], "o": {}});
        let text = value.to_string().len();
        assert!((text..text * 2).contains(&bytes(&value)));
        assert_eq!(check(&json!({"a": "x".repeat(OBJECT_BYTES)})), Err(Excess::Bytes));
    }
}
