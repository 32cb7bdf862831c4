//! Fields that a type does not know: those that a trip through it loses.

use serde_json::Value;

/// Paths that are named, at most.
const MOST: usize = 100;

/// Paths of `input`'s fields that `known` lacks. Nulls and empty lists and maps say nothing and are left out.
pub fn unknown_fields(input: &Value, known: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(input, known, &mut String::new(), &mut found);
    found
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
        _ => false,
    }
}

fn walk(input: &Value, known: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    if found.len() >= MOST {
        return;
    }
    match (input, known) {
        (Value::Object(input), Value::Object(known)) => {
            for (key, value) in input {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match known.get(key) {
                    Some(known) => walk(value, known, path, found),
                    None if says_nothing(value) => {}
                    None => found.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::Array(input), Value::Array(known)) => {
            for (i, (input, known)) in input.iter().zip(known).enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(input, known, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
