//! OpenAPI v2, the least of it: which query parameters a PATCH of a kind takes. kubectl asks for it before it sends a `kind: List`,
//! and only as protobuf (of `openapiv2.Document`, github.com/google/gnostic-models, whose field numbers these are).

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::openapi::{PARAMETERS, collection};
use crate::kinds::{KINDS, Kind};

const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";

/// A string, or a message, as the field of this number.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(content);
    out
}

/// A `ParametersItem`: a `Parameter` that is a `NonBodyParameter` that is a `QueryParameterSubSchema`.
fn parameter(name: &str) -> Vec<u8> {
    let query = [field(2, "query"), field(4, name), field(6, "string")].concat();
    field(1, field(2, field(3, query)))
}

/// A `NamedPathItem`: where objects of the kind are, and how they are patched.
fn path(kind: &Kind) -> Vec<u8> {
    let Kind {
        group,
        version,
        kind: name,
        ..
    } = kind;
    let yaml = format!("group: {group:?}\nversion: {version:?}\nkind: {name:?}\n");
    let extension = [field(1, GROUP_VERSION_KIND), field(2, field(2, yaml))].concat();
    let mut operation = field(5, format!("patch{name}"));
    for name in PARAMETERS {
        operation.extend(field(8, parameter(name)));
    }
    operation.extend(field(13, extension));
    let url = format!("{}/{{name}}", collection(kind));
    [field(1, url), field(2, field(8, operation))].concat()
}

/// `GET /openapi/v2`.
pub(super) async fn document() -> Response {
    let info = [field(1, "Gantry"), field(2, env!("CARGO_PKG_VERSION"))].concat();
    let paths: Vec<u8> = KINDS.iter().flat_map(|kind| field(2, path(kind))).collect();
    let document = [field(1, "2.0"), field(2, info), field(8, paths)].concat();
    ([(CONTENT_TYPE, MEDIA)], document).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_varints() {
        assert_eq!(field(1, "ab"), [0x0a, 2, b'a', b'b']);
        let long = field(2, vec![0; 300]);
        assert_eq!((&long[..3], long.len()), (&[0x12, 0xac, 0x02][..], 303));
    }
}
