//! Tables for people, and objects cut down to their metadata.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::accept::Form;
use crate::kinds::Kind;

/// The metadata alone.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A Table's columns.
pub fn columns(kind: &Kind) -> Value {
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
    Value::Array(columns)
}

/// A Table's row of an object. `include` is the query parameter includeObject.
pub fn row(kind: &Kind, object: Value, include: &str, now: OffsetDateTime) -> Value {
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(kind.columns.iter().map(|column| column.value(&object, now)));
    let mut row = json!({"cells": cells});
    match include {
        "None" => {}
        "Object" => row["object"] = object,
        _ => row["object"] = partial(&object),
    }
    row
}

/// A Table of some rows.
pub fn table(kind: &Kind, rows: &[Value], metadata: &Value) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns(kind), "rows": rows,
    })
}

/// One object in the form asked for.
pub fn shape(kind: &Kind, object: Value, form: Form, include: &str) -> Value {
    match form {
        Form::Object => object,
        Form::Metadata => partial(&object),
        Form::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let row = row(kind, object, include, OffsetDateTime::now_utc());
            table(kind, &[row], &metadata)
        }
    }
}
