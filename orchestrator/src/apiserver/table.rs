//! Tables for people, and objects cut down to their metadata.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::accept::Form;
use crate::kinds::Kind;

/// The metadata alone.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A Table of objects. `include` is the query parameter includeObject.
pub fn table(kind: &Kind, objects: impl IntoIterator<Item = Value>, metadata: Value, include: &str) -> Value {
    let mut columns = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    })];
    columns.extend(kind.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.type_, "format": "", "priority": i32::from(column.wide),
            "description": column.name,
        })
    }));
    let now = OffsetDateTime::now_utc();
    // One after the other: a row is small, an object is not.
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut cells = vec![object["metadata"]["name"].clone()];
            cells.extend(kind.columns.iter().map(|column| column.value(&object, now)));
            let mut row = json!({"cells": cells});
            match include {
                "None" => {}
                "Object" => row["object"] = object,
                _ => row["object"] = partial(&object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    })
}

/// One object in the form asked for.
pub fn shape(kind: &Kind, object: Value, form: Form, include: &str) -> Value {
    match form {
        Form::Object => object,
        Form::Metadata => partial(&object),
        Form::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table(kind, [object], metadata, include)
        }
    }
}
