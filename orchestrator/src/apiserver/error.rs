//! Errors as Kubernetes' Status objects.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::kinds::{FieldError, Kind};
use crate::store::StoreError;

/// A request that was not done; becomes a `Status`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: StatusCode,
    /// Kubernetes' reason, one CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Kubernetes' details.
    pub details: Value,
    /// Seconds after which the client may ask again by itself.
    pub retry_after_s: Option<u32>,
}

/// Longest message in bytes: it may repeat what the client sent.
const MESSAGE_BYTES: usize = 16 << 10;
/// Wrong fields that an answer names.
const CAUSES: usize = 10;

fn qualified(kind: &Kind) -> String {
    match kind.group {
        "" => kind.plural.to_owned(),
        group => format!("{}.{group}", kind.plural),
    }
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
            message += "...";
        }
        Self {
            code,
            reason,
            message,
            details: Value::Null,
            retry_after_s: None,
        }
    }

    fn of(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 401, a certificate that is not trusted any more.
    pub fn revoked() -> Self {
        let message =
            "the client certificate is revoked: ask for another one (`gantry kubeconfig --user NAME`)";
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// 403, an object that may not be as it is.
    pub fn forbidden_object(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(kind));
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).of(kind, name)
    }

    /// 404, an object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(kind));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).of(kind, name)
    }

    /// 404, a path.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self {
            details: json!({}),
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", message)
        }
    }

    /// 405.
    pub fn method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 408.
    pub fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    }

    /// 409, the name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(kind));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).of(kind, name)
    }

    /// 409, somebody else was faster, or a precondition does not hold.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            qualified(kind)
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).of(kind, name)
    }

    /// 410.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 415.
    pub fn media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// 422.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let more = errors.len().saturating_sub(CAUSES);
        let errors = &errors[..errors.len() - more];
        let mut causes: Vec<_> = errors
            .iter()
            .map(|e| json!({"reason": e.reason, "field": e.field, "message": e.message}))
            .collect();
        let mut words: Vec<_> = errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect();
        if more > 0 {
            words.push(format!("and {more} more"));
            // kubectl shows these alone.
            causes.push(
                json!({"reason": "FieldValueInvalid", "field": "others", "message": format!("{more} more")}),
            );
        }
        let words = if words.len() == 1 {
            words.concat()
        } else {
            format!("[{}]", words.join(", "))
        };
        let message = format!("{} {name:?} is invalid: {words}", kind.kind);
        let details = json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        Self {
            details,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        }
    }

    /// 429: not yet, ask again.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let mut details = self.details.clone();
        if let Some(seconds) = self.retry_after_s {
            details["retryAfterSeconds"] = json!(seconds);
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": details, "code": self.code.as_u16(),
        })
    }
}

/// An error with its causes: a disk without space has no room for them in the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { .. } => {
                Self::expired("the provided resource version is too old: list again without one")
            }
            StoreError::Future { asked, newest } => {
                let message = format!("Too large resource version: {asked}, current: {newest}");
                Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            }
            StoreError::Conflict { key, .. } => Self::new(
                StatusCode::CONFLICT,
                "Conflict",
                format!("{key} was changed meanwhile"),
            ),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "store");
                Self::internal(format!("{}; see the orchestrator's log", chain(&error)))
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.code, axum::Json(self.status())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::named;

    #[test]
    fn of_many_wrong_fields_the_first_ten_are_named() {
        let kind = named("Pod").unwrap();
        let errors: Vec<_> = (0..60)
            .map(|n| FieldError::invalid(format!("f{n}"), "no"))
            .collect();
        let said = ApiError::invalid(kind, "p", &errors);
        assert!(said.message.ends_with("f9: no, and 50 more]"), "{}", said.message);
        let causes = said.details["causes"].as_array().unwrap();
        assert_eq!((causes.len(), &causes[10]["message"]), (11, &json!("50 more")));
        let ten = ApiError::invalid(kind, "p", &errors[..10]);
        assert!(ten.message.ends_with("f9: no]"), "{}", ten.message);
        assert_eq!(ten.details["causes"].as_array().unwrap().len(), 10);
    }
}
