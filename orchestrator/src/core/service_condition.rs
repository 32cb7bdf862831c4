//! What stands in the way of a Service, as a condition on it; an Event when it is new.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::meta;
use super::world::{Key, Work};

/// A condition that says that something is wrong; it goes when nothing is.
pub struct Trouble {
    /// One CamelCase word.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Sets the condition `type_` to `status` for its trouble, or takes it away. What is told on every pass would itself cause
/// the next one: nothing happens when the Service says it already.
pub fn set(work: &mut Work<'_>, key: &Key, type_: &str, status: &str, trouble: Option<&Trouble>) {
    let Some(service) = work.get::<Service>(key) else {
        return;
    };
    let conditions = service.status.as_ref().and_then(|s| s.conditions.as_ref());
    let said = conditions.into_iter().flatten().find(|c| c.type_ == type_);
    let same = match (said, trouble) {
        (None, None) => true,
        (Some(said), Some(trouble)) => said.reason == trouble.reason && said.message == trouble.message,
        _ => false,
    };
    if same {
        return;
    }
    let now_ms = work.now_ms;
    let Some(edited) = work.edit::<Service>(key) else {
        return;
    };
    let conditions = edited
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    conditions.retain(|c| c.type_ != type_);
    if let Some(trouble) = trouble {
        let since = said.map_or_else(|| meta::time(now_ms), |c| c.last_transition_time.clone());
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: trouble.reason.clone(),
            message: trouble.message.clone(),
            last_transition_time: since,
            observed_generation: None,
        });
        work.tell(&*service, true, &trouble.reason, &trouble.message);
    }
}
