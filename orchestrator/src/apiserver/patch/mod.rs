//! Patches: JSON (RFC 6902), merge (RFC 7386), strategic merge (Kubernetes).

mod operations;
mod strategic;

use serde_json::Value;

use super::error::ApiError;
use super::limits::{ObjectLimits, PatchLimits};
use super::measure;
use crate::kinds::Kind;

/// A parsed patch.
#[derive(Clone, Debug)]
pub enum Patch {
    /// Operations.
    Json(json_patch::Patch),
    /// Fields to set; null removes.
    Merge(Value),
    /// The same, and lists merge by key.
    Strategic(Value),
}

impl Patch {
    /// By the request's content type. 415 for others, 400 for a body that is none.
    pub fn parse(
        content_type: &str,
        body: &[u8],
        kind: &Kind,
        limits: &ObjectLimits,
    ) -> Result<Self, ApiError> {
        measure::scan(body, limits).map_err(|e| ApiError::too_large(format!("the patch: {e}")))?;
        let wrong = |e: serde_json::Error| ApiError::bad_request(format!("the patch cannot be read: {e}"));
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match media {
            "application/json-patch+json" => serde_json::from_slice(body).map(Self::Json).map_err(wrong),
            "application/merge-patch+json" => serde_json::from_slice(body).map(Self::Merge).map_err(wrong),
            "application/strategic-merge-patch+json" if kind.strategic => {
                serde_json::from_slice(body).map(Self::Strategic).map_err(wrong)
            }
            "application/apply-patch+yaml" => Err(ApiError::media_type(
                "server-side apply is not supported yet: use `kubectl apply` without --server-side",
            )),
            _ => {
                let strategic = if kind.strategic {
                    ", application/strategic-merge-patch+json"
                } else {
                    ""
                };
                Err(ApiError::media_type(format!(
                    "the body of the request was in an unknown format ({media}): accepted media types are \
                     application/json-patch+json, application/merge-patch+json{strategic}"
                )))
            }
        }
    }

    /// The object after the patch. 422-like errors come as 400 with the reason.
    pub fn apply(&self, object: &Value, limits: &PatchLimits) -> Result<Value, ApiError> {
        let mut object = object.clone();
        match self {
            Self::Json(patch) => operations::apply(&mut object, patch, limits)?,
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Strategic(patch) => {
                strategic::merge(&mut object, patch, limits.comparisons).map_err(ApiError::bad_request)?;
            }
        }
        Ok(object)
    }
}
