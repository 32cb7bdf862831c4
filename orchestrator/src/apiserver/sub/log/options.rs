//! What a request for a log may ask for: Kubernetes' PodLogOptions.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `ValidatePodLogOptions`.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::kinds::FieldError;

/// The query as it came; numbers may be of either sign until they are judged.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LogQuery {
    pub(super) container: String,
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    stream: Option<String>,
}

/// Which part of a log is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) since_ms: Option<u64>,
    /// `stdout` or `stderr`; both without it.
    pub(super) stream: Option<String>,
}

impl LogQuery {
    /// The wanted part, or all that is wrong.
    pub(super) fn part(&self, now: OffsetDateTime) -> Result<Part, Vec<FieldError>> {
        let mut errors = Vec::new();
        let part = Part {
            tail_lines: at_least("tailLines", self.tail_lines, 0, &mut errors),
            limit_bytes: at_least("limitBytes", self.limit_bytes, 1, &mut errors),
            since_ms: self.since_ms(now, &mut errors),
            stream: self.stream(&mut errors),
        };
        if errors.is_empty() { Ok(part) } else { Err(errors) }
    }

    fn since_ms(&self, now: OffsetDateTime, errors: &mut Vec<FieldError>) -> Option<u64> {
        let ms = |t: OffsetDateTime| u64::try_from(t.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let seconds = at_least("sinceSeconds", self.since_seconds, 1, errors);
        // Old clients write no time so.
        let time = self.since_time.as_deref().filter(|t| !["", "null"].contains(t));
        let Some(text) = time else {
            return seconds.map(|seconds| ms(now).saturating_sub(seconds.saturating_mul(1000)));
        };
        if self.since_seconds.is_some() {
            let message = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("sinceSeconds", message));
        }
        let time = OffsetDateTime::parse(text, &Rfc3339);
        if time.is_err() {
            let message = format!("{text:?} is no time (RFC 3339, for example 2006-01-02T15:04:05Z)");
            errors.push(FieldError::invalid("sinceTime", message));
        }
        time.ok().map(ms)
    }

    fn stream(&self, errors: &mut Vec<FieldError>) -> Option<String> {
        let name = self.stream.as_deref()?;
        match name {
            "All" => return None,
            "Stdout" | "Stderr" => {}
            _ => {
                let message = format!("{name:?} is not supported: use All, Stdout or Stderr");
                errors.push(FieldError::invalid("stream", message));
            }
        }
        if self.tail_lines.is_some() {
            let message = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden("stream", message));
        }
        Some(name.to_lowercase())
    }
}

fn at_least(field: &str, number: Option<i64>, least: u64, errors: &mut Vec<FieldError>) -> Option<u64> {
    let good = u64::try_from(number?).ok().filter(|n| *n >= least);
    if good.is_none() {
        let message = format!("must be greater than or equal to {least}");
        errors.push(FieldError::invalid(field, message));
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(query: &str) -> Result<Part, Vec<String>> {
        let uri = format!("/log?{query}").parse().unwrap();
        let query = axum::extract::Query::<LogQuery>::try_from_uri(&uri).unwrap().0;
        let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
        let part = query.part(now);
        part.map_err(|errors| errors.into_iter().map(|e| e.field).collect())
    }

    #[test]
    fn options_are_followed_or_refused() {
        let all = Part {
            tail_lines: None,
            limit_bytes: None,
            since_ms: None,
            stream: None,
        };
        assert_eq!(part("sinceTime=&stream=All").unwrap(), all);
        let some = part("tailLines=0&limitBytes=1&sinceSeconds=1&stream=All").unwrap();
        let found = (some.tail_lines, some.limit_bytes, some.since_ms);
        assert_eq!(found, (Some(0), Some(1), Some(999_000)));
        let long_ago = part("sinceSeconds=9223372036854775807").unwrap();
        assert_eq!(long_ago.since_ms, Some(0));
        let time = part("sinceTime=1970-01-01T00:00:02Z&stream=Stderr").unwrap();
        assert_eq!(
            (time.since_ms, time.stream.as_deref()),
            (Some(2000), Some("stderr"))
        );
        for (query, field) in [
            ("tailLines=-1", "tailLines"),
            ("limitBytes=0", "limitBytes"),
            ("limitBytes=-5", "limitBytes"),
            ("sinceSeconds=0", "sinceSeconds"),
            ("sinceTime=yesterday", "sinceTime"),
            ("sinceTime=2026-01-01", "sinceTime"),
            ("sinceSeconds=1&sinceTime=1970-01-01T00:00:02Z", "sinceSeconds"),
            ("stream=stdout", "stream"),
            ("stream=", "stream"),
            ("stream=Stdout&tailLines=1", "stream"),
        ] {
            assert_eq!(part(query).unwrap_err(), [field], "{query}");
        }
    }
}
