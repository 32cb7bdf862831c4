//! Reading JSON by path.

use serde_json::Value;

/// The value at a JSON pointer, `Null` if there is none.
pub fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// The text at a JSON pointer, empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    at(object, pointer).as_str().unwrap_or_default()
}

/// The list at a JSON pointer, empty if there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    at(object, pointer).as_array().map_or(&[], Vec::as_slice)
}

/// The object at a path of names, made where it is missing. `None` if something else is in the way.
pub fn entry<'a>(mut object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    for name in path {
        if object.is_null() {
            *object = Value::Object(Default::default());
        }
        object = object.as_object_mut()?.entry(*name).or_insert(Value::Null);
    }
    Some(object)
}

/// Sets a value where there is none.
pub fn set_default(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    if let Some(slot) = entry(object, path)
        && slot.is_null()
    {
        *slot = value.into();
    }
}
