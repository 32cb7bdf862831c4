//! Query parameters of requests.

use serde::Deserialize;

use super::error::ApiError;
use super::limits::ObjectLimits;
use super::objects::{FieldValidation, WriteOptions};
use super::selector::Selector;

/// Those that any request may carry; unknown ones are ignored, as Kubernetes does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Query {
    label_selector: String,
    field_selector: String,
    /// Page size.
    pub limit: usize,
    /// Token of the next page.
    #[serde(rename = "continue")]
    pub continue_: String,
    /// Revision to read or watch at.
    pub resource_version: String,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: String,
    watch: String,
    allow_watch_bookmarks: String,
    send_initial_events: String,
    /// Length of a watch.
    pub timeout_seconds: Option<u64>,
    dry_run: String,
    field_validation: String,
    /// Grace of a deletion.
    pub grace_period_seconds: Option<i64>,
    /// What happens to dependents.
    pub propagation_policy: Option<String>,
    /// In tables: `None`, `Metadata`, `Object`.
    pub include_object: String,
}

fn flag(text: &str) -> bool {
    matches!(text, "true" | "1")
}

impl Query {
    /// Parses the part behind the question mark.
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let uri: http::Uri = format!("/?{}", query.unwrap_or_default())
            .parse()
            .map_err(|e| ApiError::bad_request(format!("query: {e}")))?;
        let parsed = axum::extract::Query::<Self>::try_from_uri(&uri);
        Ok(parsed
            .map_err(|e| ApiError::bad_request(format!("query: {e}")))?
            .0)
    }

    /// What the request is restricted to.
    pub fn selector(&self, limits: &ObjectLimits) -> Result<Selector, ApiError> {
        Selector::parse(&self.label_selector, &self.field_selector, limits)
    }

    /// The request is a watch.
    pub fn is_watch(&self) -> bool {
        flag(&self.watch)
    }

    /// The client understands bookmarks.
    pub fn bookmarks(&self) -> bool {
        flag(&self.allow_watch_bookmarks)
    }

    /// The watch begins with all objects, then a marked bookmark.
    pub fn initial_events(&self) -> bool {
        flag(&self.send_initial_events)
    }

    /// Options of a write.
    pub fn write_options(&self) -> Result<WriteOptions, ApiError> {
        let validation = match self.field_validation.as_str() {
            "Strict" => FieldValidation::Strict,
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation {other:?}: use Strict, Warn or Ignore"
                )));
            }
        };
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            validation,
            system: false,
        })
    }

    /// Nothing is to be written.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.dry_run.as_str() {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::bad_request(format!("dryRun {other:?}: use All"))),
        }
    }
}
