//! Rules on a LabelSelector within an object, and what it selects. One that nobody can read would select nothing, or everything.
//!
//! Source: k8s.io/apimachinery/pkg/apis/meta/v1/validation, `ValidateLabelSelector`.

use serde_json::{Map, Value};

use super::FieldError;
use super::names::{is_label_value, is_qualified_name};
use super::path::{at, list, text};

type Errors = Vec<FieldError>;

/// All rules on the selector at `path`.
pub(super) fn check(selector: &Value, path: &str, errors: &mut Errors) {
    let labels = at(selector, "/matchLabels").as_object();
    for (key, value) in labels.into_iter().flatten() {
        if !is_qualified_name(key) || !value.as_str().is_some_and(is_label_value) {
            let message = format!("{key}={value} is not a valid label");
            errors.push(FieldError::invalid(format!("{path}.matchLabels"), message));
        }
    }
    for (i, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        requirement(expression, &format!("{path}.matchExpressions[{i}]"), errors);
    }
}

fn requirement(expression: &Value, here: &str, errors: &mut Errors) {
    let operator = text(expression, "/operator");
    let values = list(expression, "/values");
    let field = format!("{here}.values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let message = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(field, message));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(field, message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => {
            let message = format!("{operator:?} is not one of In, NotIn, Exists, DoesNotExist");
            errors.push(FieldError::invalid(format!("{here}.operator"), message));
        }
    }
    let key = text(expression, "/key");
    if !is_qualified_name(key) {
        let message = format!("{key:?} is not a valid key of a label");
        errors.push(FieldError::invalid(format!("{here}.key"), message));
    }
    for (i, value) in values.iter().enumerate() {
        if !value.as_str().is_some_and(is_label_value) {
            let message = format!("{value} is not a valid value of a label");
            errors.push(FieldError::invalid(format!("{here}.values[{i}]"), message));
        }
    }
}

/// Whether a sound selector selects what has these labels.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let owned = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labelled = at(selector, "/matchLabels").as_object().into_iter().flatten();
    let labelled = labelled.map(|(key, value)| Requirement::In(key.clone(), vec![owned(value)]));
    let expressions = list(selector, "/matchExpressions").iter().map(|expression| {
        let key = text(expression, "/key").to_owned();
        let values = || list(expression, "/values").iter().map(owned).collect();
        match text(expression, "/operator") {
            "In" => Requirement::In(key, values()),
            "NotIn" => Requirement::NotIn(key, values()),
            "Exists" => Requirement::Exists(key),
            _ => Requirement::NotExists(key),
        }
    });
    labelled
        .chain(expressions)
        .all(|requirement| requirement.is_met(labels.as_object()))
}

/// One requirement on a label, of an object's selector or of a request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// It is there, and has one of the values.
    In(String, Vec<String>),
    /// It is not there, or has none of the values.
    NotIn(String, Vec<String>),
    /// It is there.
    Exists(String),
    /// It is not there.
    NotExists(String),
}

impl Requirement {
    /// Whether these labels have it so.
    pub fn is_met(&self, labels: Option<&Map<String, Value>>) -> bool {
        let get = |key: &String| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        match self {
            Self::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(key) => get(key).is_some(),
            Self::NotExists(key) => get(key).is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(expression: Value) -> Value {
        json!({"matchExpressions": [expression]})
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_refused() {
        let refused = |selector: &Value| {
            let mut errors = Errors::new();
            check(selector, "s", &mut errors);
            errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        for (expression, field) in [
            (json!({"key": "a", "operator": "in", "values": ["x"]}), "operator"),
            (json!({"key": "a", "operator": "Gt", "values": ["1"]}), "operator"),
            (json!({"key": "a", "operator": ""}), "operator"),
            (json!({"key": "a", "operator": "In"}), "values"),
            (json!({"key": "a", "operator": "NotIn", "values": []}), "values"),
            (
                json!({"key": "a", "operator": "Exists", "values": ["x"]}),
                "values",
            ),
            (
                json!({"key": "a", "operator": "DoesNotExist", "values": ["x"]}),
                "values",
            ),
            (
                json!({"key": "a", "operator": "In", "values": ["x", "-"]}),
                "values[1]",
            ),
            (json!({"key": "a b", "operator": "Exists"}), "key"),
        ] {
            let field = format!("s.matchExpressions[0].{field}");
            assert_eq!(refused(&of(expression.clone())), [field], "{expression}");
        }
        for label in [json!({"a b": "x"}), json!({"a": "-"})] {
            assert_eq!(refused(&json!({"matchLabels": label})), ["s.matchLabels"]);
        }
        let sound = json!({"matchLabels": {"a.b/c": ""}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["x", ""]}, {"key": "b", "operator": "DoesNotExist"}]});
        assert!(refused(&sound).is_empty());
    }

    #[test]
    fn labels_are_selected_as_kubernetes_does() {
        let labels = json!({"a": "x"});
        for (key, operator, values, selected) in [
            ("a", "In", json!(["x", "y"]), true),
            ("a", "In", json!(["y"]), false),
            ("b", "In", json!(["x"]), false),
            ("a", "NotIn", json!(["x"]), false),
            ("a", "NotIn", json!(["y"]), true),
            ("b", "NotIn", json!(["x"]), true),
            ("a", "Exists", json!(null), true),
            ("b", "Exists", json!(null), false),
            ("a", "DoesNotExist", json!(null), false),
            ("b", "DoesNotExist", json!(null), true),
        ] {
            let selector = of(json!({"key": key, "operator": operator, "values": values}));
            assert_eq!(selects(&selector, &labels), selected, "{selector}");
        }
        let with_labels = |value: &str| json!({"matchLabels": {"a": value}});
        assert!(selects(&with_labels("x"), &labels) && !selects(&with_labels("y"), &labels));
        assert!(!selects(&with_labels("x"), &Value::Null));
    }
}
