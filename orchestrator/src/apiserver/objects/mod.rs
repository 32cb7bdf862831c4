//! Objects over the store, by the rules of the table: the one way in for the API and for the orchestrator's own shell.

mod create;
mod delete;
mod meta;
mod prepare;
mod resize;
mod room;
mod security;
mod service_ip;
mod update;

use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::error::ApiError;
use super::limits::ObjectLimits;
use super::selector::Selector;
use crate::kinds::{Kind, codec};
use crate::store::{Listing, Range, Store, Version};

pub use delete::{DeleteOptions, Deleted};
pub(crate) use meta::now;
pub(super) use meta::set_requester;
pub use room::Counter;
pub use update::Target;

/// What happens to fields that a type does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// The request fails.
    Strict,
    /// They are dropped with a warning.
    #[default]
    Warn,
    /// They are dropped.
    Ignore,
}

/// How a write is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Everything but the write.
    pub dry_run: bool,
    /// Unknown fields.
    pub validation: FieldValidation,
    /// The orchestrator itself writes: pods' specs may change.
    pub system: bool,
}

/// A write that was done.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now.
    pub object: Value,
    /// For the client's Warning headers.
    pub warnings: Vec<String>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
    service_cidr: Ipv4Net,
    limits: ObjectLimits,
    room: room::Room,
}

impl Objects {
    /// Over a store; Services get addresses of the range.
    pub fn new(store: Arc<dyn Store>, service_cidr: Ipv4Net) -> Self {
        Self {
            store,
            service_cidr,
            limits: ObjectLimits::default(),
            room: room::Room::default(),
        }
    }

    /// With other bounds.
    pub fn with_limits(mut self, limits: ObjectLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Counts what namespaces keep: to be run beside, or nothing bounds that.
    pub fn counter(&self) -> Counter {
        Counter {
            store: self.store.clone(),
            room: self.room.clone(),
        }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// One object, with its resourceVersion. 404 if absent.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, ApiError> {
        let found = self.stored(kind, namespace, name).await?;
        Ok(codec::decode(&found))
    }

    /// The same as it is stored.
    pub async fn stored(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Version, ApiError> {
        let found = self.store.get(&kind.key(namespace, name)).await?;
        found.ok_or_else(|| ApiError::not_found(kind, name))
    }

    /// All objects of a kind that a selector takes, as they are stored: whoever wants to look into them does so one after the
    /// other. And the revision that the list shows.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Result<Listing, ApiError> {
        let mut listing = self.store.list(Range::prefix(kind.prefix(namespace))).await?;
        listing.items.retain(|version| selector.selects(version));
        Ok(listing)
    }
}

#[cfg(test)]
mod tests;
