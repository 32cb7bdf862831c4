//! Model to wire (`From<&Model>`, never fails) and wire to model (`TryFrom<Wire>`, names the field that is wrong).

mod config;
mod container;
mod message;
mod security;
mod status;
mod volume;

use std::fmt::Display;
use std::str::FromStr;

/// A message from the wire that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct InvalidMessage {
    path: String,
    reason: String,
}

impl InvalidMessage {
    pub(crate) fn new(path: impl Display, reason: impl Display) -> Self {
        Self {
            path: path.to_string(),
            reason: reason.to_string(),
        }
    }
}

/// Puts the outer field in front of an error's path.
trait At<T> {
    fn at(self, outer: impl Display) -> Result<T, InvalidMessage>;
}

impl<T> At<T> for Result<T, InvalidMessage> {
    fn at(self, outer: impl Display) -> Self {
        self.map_err(|e| InvalidMessage {
            path: format!("{outer}.{}", e.path),
            reason: e.reason,
        })
    }
}

fn parse<T: FromStr>(path: &str, text: &str) -> Result<T, InvalidMessage>
where
    T::Err: Display,
{
    text.parse()
        .map_err(|e| InvalidMessage::new(path, format_args!("`{text}`: {e}")))
}

fn parse_opt<T: FromStr>(path: &str, text: Option<&str>) -> Result<Option<T>, InvalidMessage>
where
    T::Err: Display,
{
    text.map(|t| parse(path, t)).transpose()
}

fn required<T>(path: &str, value: Option<T>) -> Result<T, InvalidMessage> {
    value.ok_or_else(|| InvalidMessage::new(path, "missing"))
}

/// Whether one that a pod has is none (0) is the pod's fault, and told as one: what can be written can be read.
fn port(path: &str, value: u32) -> Result<u16, InvalidMessage> {
    u16::try_from(value).map_err(|_| InvalidMessage::new(path, format_args!("{value} is no port")))
}

/// Decodes a map, naming the key on error.
fn map<K: Ord + Display, W, M>(
    path: &str,
    wire: std::collections::BTreeMap<K, W>,
    decode: impl Fn(W) -> Result<M, InvalidMessage>,
) -> Result<std::collections::BTreeMap<K, M>, InvalidMessage> {
    wire.into_iter()
        .map(|(key, value)| {
            let value = decode(value).at(format_args!("{path}[{key}]"))?;
            Ok((key, value))
        })
        .collect()
}

/// Decodes a list, naming the index on error.
fn list<W, M>(
    path: &str,
    wire: Vec<W>,
    decode: impl Fn(W) -> Result<M, InvalidMessage>,
) -> Result<Vec<M>, InvalidMessage> {
    wire.into_iter()
        .enumerate()
        .map(|(i, w)| decode(w).at(format_args!("{path}[{i}]")))
        .collect()
}

/// Decodes a message field that may be absent.
fn optional<W, M>(
    path: &str,
    wire: Option<W>,
    decode: impl Fn(W) -> Result<M, InvalidMessage>,
) -> Result<Option<M>, InvalidMessage> {
    wire.map(|w| decode(w).at(path)).transpose()
}
