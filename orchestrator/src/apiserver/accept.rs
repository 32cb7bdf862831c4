//! What form of answer a client asks for.

use http::HeaderMap;
use http::header::ACCEPT;

/// Form of objects in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Object,
    /// Rows for people.
    Table,
    /// Metadata only.
    Metadata,
}

/// The first form in the Accept header that we know.
pub fn form(headers: &HeaderMap) -> Form {
    let accept = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    for part in accept.split(',') {
        let mut parameters = part.split(';').map(str::trim);
        let media = parameters.next().unwrap_or_default();
        let named = |name: &str| part.split(';').filter_map(|p| p.trim().strip_prefix(name)).next();
        if media != "application/json" && media != "*/*" {
            continue;
        }
        match (named("as="), named("v=")) {
            (Some("Table"), Some("v1")) => return Form::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                return Form::Metadata;
            }
            (Some(_), _) => {}
            (None, _) => return Form::Object,
        }
    }
    Form::Object
}
