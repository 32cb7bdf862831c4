//! Which packages an object speaks of.

use serde_json::Value;

use super::path::{list, text};

/// None.
pub(super) fn none(_: &Value) -> Vec<(String, String)> {
    Vec::new()
}

fn named(at: &Value) -> (String, String) {
    (text(at, "/package").to_owned(), text(at, "/version").to_owned())
}

/// The one of a NetworkFunction.
pub(super) fn of_function(object: &Value) -> Vec<(String, String)> {
    object.get("spec").map(named).into_iter().collect()
}

/// Those of a NetworkService.
pub(super) fn of_service(object: &Value) -> Vec<(String, String)> {
    list(object, "/spec/functions").iter().map(named).collect()
}
