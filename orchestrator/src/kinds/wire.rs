//! Typed decoding.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DecodeError;

/// Through the type `T` and back.
pub(super) fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, DecodeError> {
    let typed: T = serde_path_to_error::deserialize(object).map_err(|e| DecodeError {
        field: e.path().to_string(),
        message: e.inner().to_string(),
    })?;
    serde_json::to_value(typed).map_err(|e| DecodeError {
        field: String::new(),
        message: e.to_string(),
    })
}
