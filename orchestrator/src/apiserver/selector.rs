//! Label selectors and field selectors.

use serde_json::Value;

use super::error::ApiError;
use super::limits::ObjectLimits;
use super::looked::looked;
use crate::kinds::{Requirement, is_label_value, is_qualified_name};
use crate::store::Version;

/// Where labels are.
pub(super) const LABELS: &str = "metadata.labels";

/// Fields that may be selected by, for all kinds together; other kinds than the natural one simply lack the field.
pub(super) const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.unschedulable",
    "status.phase",
    "status.podIP",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "type",
];

fn bounded(what: &str, text: &str, limits: &ObjectLimits) -> Result<(), ApiError> {
    let (bytes, terms) = (limits.selector_bytes, limits.selector_terms);
    if text.len() > bytes || text.matches(',').count() >= terms {
        return Err(ApiError::bad_request(format!(
            "the {what} selector is longer than {bytes} bytes or {terms} terms"
        )));
    }
    Ok(())
}

/// What a list or watch is restricted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    /// JSON pointer, value, wanted equal.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// From the query parameters `labelSelector` and `fieldSelector`.
    pub fn parse(labels: &str, fields: &str, limits: &ObjectLimits) -> Result<Self, ApiError> {
        bounded("label", labels, limits)?;
        bounded("field", fields, limits)?;
        let labels = split(labels)
            .into_iter()
            .map(requirement)
            .collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|f| !f.is_empty())
            .map(field)
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// True if everything matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The name, if exactly one is selected.
    pub fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|(p, _, equal)| p == "/metadata/name" && *equal)
            .map(|(_, name, _)| name.as_str())
    }

    /// Whether a stored object is selected; of the object only what is asked for is read.
    pub fn selects(&self, version: &Version) -> bool {
        self.is_everything() || self.matches(&looked(&version.value))
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        self.labels.iter().all(|r| r.is_met(labels))
            && self.fields.iter().all(|(pointer, value, equal)| {
                let found = match object.pointer(pointer) {
                    Some(Value::String(text)) => text == value,
                    Some(Value::Bool(flag)) => flag.to_string() == *value,
                    _ => value.is_empty() || value == "false",
                };
                found == *equal
            })
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = (depth - 1).max(0),
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn requirement(text: &str) -> Result<Requirement, ApiError> {
    let wrong = || {
        ApiError::bad_request(format!(
            "unable to parse requirement {text:?} of the label selector"
        ))
    };
    let parsed = if let Some((left, values)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        let left = left.trim();
        if let Some(key) = left.strip_suffix(" notin") {
            Requirement::NotIn(key.trim().to_owned(), values)
        } else {
            let key = left.strip_suffix(" in").ok_or_else(wrong)?;
            Requirement::In(key.trim().to_owned(), values)
        }
    } else if let Some((key, value)) = text.split_once("!=") {
        Requirement::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()])
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        Requirement::In(key.trim().to_owned(), vec![value.trim().to_owned()])
    } else if let Some(key) = text.strip_prefix('!') {
        Requirement::NotExists(key.trim().to_owned())
    } else {
        Requirement::Exists(text.to_owned())
    };
    let (key, values): (&str, &[String]) = match &parsed {
        Requirement::In(key, values) | Requirement::NotIn(key, values) => (key, values),
        Requirement::Exists(key) | Requirement::NotExists(key) => (key, &[]),
    };
    if !is_qualified_name(key) || !values.iter().all(|v| is_label_value(v)) {
        return Err(wrong());
    }
    Ok(parsed)
}

fn field(text: &str) -> Result<(String, String, bool), ApiError> {
    let (path, value, equal) = if let Some((path, value)) = text.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (path, value, true)
    } else {
        return Err(ApiError::bad_request(format!(
            "invalid field selector {text:?}: write path=value"
        )));
    };
    if !FIELDS.contains(&path) {
        return Err(ApiError::bad_request(format!(
            "field label not supported: {path}"
        )));
    }
    Ok((format!("/{}", path.replace('.', "/")), value.to_owned(), equal))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(labels: &str, fields: &str) -> Result<Selector, ApiError> {
        Selector::parse(labels, fields, &ObjectLimits::default())
    }

    fn matches(labels: &str, fields: &str) -> bool {
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "sip", "tier": "core"}}, "spec": {"nodeName": "n1"}});
        parse(labels, fields).unwrap().matches(&pod)
    }

    #[test]
    fn labels() {
        for yes in [
            "",
            "app",
            "app=sip",
            "app==sip",
            "app!=x",
            "!none",
            "app in (x, sip),tier",
            "none notin (a,b)",
            "none!=x",
        ] {
            assert!(matches(yes, ""), "{yes}");
        }
        for no in ["!app", "app=x", "app notin (sip)", "none", "app in (x),tier=core"] {
            assert!(!matches(no, ""), "{no}");
        }
        assert!(parse("a b", "").is_err());
        assert!(parse("app in x", "").is_err());
        assert!(parse(&"a,".repeat(300), "").is_err());
        assert!(parse(&"a".repeat(9000), "").is_err());
    }

    #[test]
    fn fields() {
        assert!(matches("", "metadata.name=p,spec.nodeName!=n2"));
        assert!(!matches("", "spec.nodeName="));
        assert!(matches("", "status.phase="));
        assert!(parse("", "spec.foo=1").is_err());
    }

    proptest! {
        #[test]
        fn in_and_notin_are_opposites(key in "[a-c]", values in prop::collection::vec("[x-z]", 1..3), has in prop::option::of("[x-z]")) {
            let object = match has {
                Some(value) => json!({"metadata": {"labels": {"a": value}}}),
                None => json!({"metadata": {}}),
            };
            let list = values.join(",");
            let yes = parse(&format!("{key} in ({list})"), "").unwrap().matches(&object);
            let no = parse(&format!("{key} notin ({list})"), "").unwrap().matches(&object);
            prop_assert!(yes != no);
        }

        #[test]
        fn never_panics(labels in ".{0,30}", fields in ".{0,30}") {
            let _ = parse(&labels, &fields);
        }
    }
}
