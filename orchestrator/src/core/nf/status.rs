//! What a function is at the moment, in its status.

use gantry_api::{NetworkFunction, labels};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::super::world::{Flaw, Key, Work};
use super::super::{meta, pods, vip};
use super::render;

/// Brings the status of every function up to date; tells people when something new stands in its way.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<NetworkFunction>() {
        one(work, &key);
    }
}

fn one(work: &mut Work<'_>, key: &Key) {
    let Some(function) = work.get::<NetworkFunction>(key) else {
        return;
    };
    let instances = work.pods_of(&function.metadata);
    let mut status = function.status.clone();
    if function.metadata.deletion_timestamp.is_none()
        && let Ok(blueprint) = render::blueprint(work, function.clone())
    {
        status.revision = blueprint.revision;
        status.revision_generation = function.metadata.generation.unwrap_or(0);
    }
    let count = |keep: &dyn Fn(&Pod) -> bool| {
        u32::try_from(instances.iter().filter(|p| keep(p)).count()).unwrap_or(u32::MAX)
    };
    status.replicas = count(&|_| true);
    status.ready_replicas = count(&|p| !pods::is_leaving(p) && pods::is_ready(p));
    status.draining_replicas = count(&pods::is_leaving);
    status.updated_replicas = count(&|p| {
        !pods::is_leaving(p) && meta::label(&p.metadata, labels::REVISION) == Some(status.revision.as_str())
    });
    status.vip = work
        .get::<Service>(key)
        .and_then(|s| vip::of(&s))
        .map(|v| v.to_string())
        .unwrap_or_default();
    status.selector = format!("{}={}", labels::NF, key.name);
    let told: Vec<u64> = instances
        .iter()
        .filter_map(|p| pods::sessions(p, work.agents))
        .collect();
    status.sessions = (!told.is_empty()).then(|| told.iter().sum());
    let unplaced = instances.iter().find_map(|p| {
        let reason = &work.unplaced.get(meta::uid(&p.metadata))?.reason;
        Some(format!("{}: {reason}", meta::name(&p.metadata)))
    });
    let flaw = work.flaws.get(key);
    status.conditions = conditions(&function, flaw, work.now_ms);
    let blocked = work
        .problems
        .get(key)
        .cloned()
        .or(flaw.map(|f| f.message.clone()))
        .or(unplaced)
        .or(work.hints.get(key).cloned());
    // Nobody is told about a pod's own trouble: an instance that starts has some, and the pod's events say it too.
    let tell = blocked.is_some();
    let unready = || {
        instances
            .iter()
            .filter(|p| !pods::is_leaving(p))
            .find_map(|p| trouble(p))
    };
    status.message = blocked.or_else(unready).unwrap_or_default();
    if status.message != function.status.message && tell {
        work.tell(&*function, true, "NotAsWanted", &status.message);
    }
    if status != function.status
        && let Some(function) = work.edit::<NetworkFunction>(key)
    {
        function.status = status;
    }
}

/// The condition that says what is wrong with the function; its time moves only when it appears.
fn conditions(function: &NetworkFunction, flaw: Option<&Flaw>, now_ms: u64) -> Vec<Condition> {
    let condition = |flaw: &Flaw| {
        let known = function
            .status
            .conditions
            .iter()
            .find(|c| c.type_ == flaw.condition);
        Condition {
            type_: flaw.condition.to_owned(),
            status: "True".to_owned(),
            reason: flaw.reason.to_owned(),
            message: flaw.message.clone(),
            last_transition_time: known
                .map_or_else(|| meta::time(now_ms), |c| c.last_transition_time.clone()),
            observed_generation: function.metadata.generation,
        }
    };
    flaw.map(condition).into_iter().collect()
}

/// What keeps an instance from being ready: as its node tells it, or why it has not got there.
fn trouble(pod: &Pod) -> Option<String> {
    let message = pods::hindrance(pod, &[pods::READY_TO_START])?;
    Some(format!("{}: {message}", meta::name(&pod.metadata)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_instance_that_is_not_ready_says_why() {
        let pod = |ready: &str| -> Pod {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let status = json!({"message": "image kamailio:1 is not in the store", "conditions": conditions});
            serde_json::from_value(json!({"metadata": {"name": "p-1"}, "status": status})).unwrap()
        };
        assert_eq!(
            trouble(&pod("False")).as_deref(),
            Some("p-1: image kamailio:1 is not in the store")
        );
        assert_eq!(trouble(&pod("True")), None);
        assert_eq!(trouble(&Pod::default()), None);
    }

    #[test]
    fn an_instance_that_waits_for_something_says_for_what() {
        let pod = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p-1"}, "status": status})).unwrap()
        };
        let held = json!([{"type": "PodReadyToStartContainers", "status": "False", "message": "secret \"a\" not found"}]);
        assert_eq!(
            trouble(&pod(json!({"conditions": held}))).as_deref(),
            Some("p-1: secret \"a\" not found")
        );
        let state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": state});
        let waits = trouble(&pod(json!({"containerStatuses": [container]})));
        assert_eq!(waits.as_deref(), Some("p-1: back-off 10s"));
    }
}
