//! Addresses of Services. [`SERVICE_ADDRESS`] keeps two from taking the same at the same time.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use rand::Rng;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::selector::Selector;
use super::Objects;
use crate::kinds::{FieldError, Kind, SERVICE_ADDRESS, at, codec, service_addresses, service_share};
use crate::store::{Compare, Txn};

/// An address that was chosen; taken with the transaction that writes its Service.
pub(super) struct Choice {
    compare: Compare,
    address: String,
}

impl Choice {
    /// The transaction, if nobody chose meanwhile.
    pub fn join(self, txn: Txn) -> Txn {
        txn.when(SERVICE_ADDRESS, self.compare)
            .put(SERVICE_ADDRESS, self.address.into())
    }
}

impl Objects {
    /// Gives a new Service an address, unless it wants none; checks the one that it names.
    pub(super) async fn assign_address(
        &self,
        kind: &Kind,
        object: &mut Value,
    ) -> Result<Option<Choice>, ApiError> {
        if kind.kind != "Service" || at(object, "/spec/clusterIP") == "None" {
            return Ok(None);
        }
        // In this order: a Service that is missing in the list below changes the key after this.
        let last = self.store.get(SERVICE_ADDRESS).await?;
        let compare = last.map_or(Compare::Absent, |version| Compare::At(version.mod_revision));
        let services = self.list(kind, None, &Selector::default()).await?.items;
        let group = |object: &Value| {
            let namespace = at(object, "/metadata/namespace").as_str();
            self.room.group(namespace.unwrap_or_default())
        };
        let own_group = group(object);
        let (mut own, mut taken) = (0, HashSet::new());
        for service in services.iter().map(codec::decode) {
            let address = at(&service, "/spec/clusterIP");
            own += u64::from(address != "None" && group(&service) == own_group);
            taken.extend(address.as_str().map(str::to_owned));
        }
        let (share, all) = (
            service_share(self.service_cidr),
            service_addresses(self.service_cidr),
        );
        if own >= share {
            return Err(ApiError::forbidden(format!(
                "{own_group} has its share of the {all} service addresses of {}, which is {share}: delete Services there",
                self.service_cidr
            )));
        }
        let address = match at(object, "/spec/clusterIP").as_str().filter(|a| !a.is_empty()) {
            Some(wanted) => {
                if let Some(why) = self.unfit(wanted, &taken) {
                    let errors = [FieldError::invalid("spec.clusterIP", format!("{wanted} {why}"))];
                    return Err(ApiError::invalid(
                        kind,
                        at(object, "/metadata/name").as_str().unwrap_or_default(),
                        &errors,
                    ));
                }
                wanted.to_owned()
            }
            None => self
                .free_address(&taken)
                .ok_or_else(|| {
                    ApiError::internal(format!(
                        "no free service address in {}: delete a Service",
                        self.service_cidr
                    ))
                })?
                .to_string(),
        };
        object["spec"]["clusterIP"] = json!(address);
        object["spec"]["clusterIPs"] = json!([address]);
        Ok(Some(Choice { compare, address }))
    }

    /// Why a Service cannot have this address.
    fn unfit(&self, wanted: &str, taken: &HashSet<String>) -> Option<String> {
        let range = self.service_cidr;
        let inside = wanted.parse().is_ok_and(|address: Ipv4Addr| {
            range.contains(&address) && ![range.network(), range.broadcast()].contains(&address)
        });
        if !inside {
            return Some(format!("is no address of the range {range}"));
        }
        taken.contains(wanted).then(|| "is another Service's".to_owned())
    }

    /// The first free one from a random place on: an address is not taken up again right after its Service went.
    fn free_address(&self, taken: &HashSet<String>) -> Option<Ipv4Addr> {
        let first = u64::from(u32::from(self.service_cidr.network()));
        let count = service_addresses(self.service_cidr);
        let start = if count == 0 {
            0
        } else {
            rand::rng().random_range(0..count)
        };
        (0..count)
            .map(|i| first + 2 + (start + i) % count)
            .filter_map(|n| u32::try_from(n).ok().map(Ipv4Addr::from))
            .find(|address| !taken.contains(address.to_string().as_str()))
    }
}
