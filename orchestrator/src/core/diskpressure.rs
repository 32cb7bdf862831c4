//! What a node without space on its disk shows: a condition, and the taint that goes with it.
//!
//! Source: k8s.io/kubernetes/pkg/kubelet/nodestatus, `DiskPressureCondition`; Well-Known Labels, Annotations and Taints.

use k8s_openapi::api::core::v1::{Node, Taint};

/// The condition.
pub const CONDITION: &str = "DiskPressure";
/// The taint's key. Its effect is `NoSchedule`: the planner gives such a node no new pods.
pub const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";

/// Status, reason and message of the condition, if the agent says `why` (empty: there is no pressure).
pub(super) fn standing(why: &str) -> (&'static str, &'static str, &str) {
    if why.is_empty() {
        (
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        )
    } else {
        ("True", "KubeletHasDiskPressure", why)
    }
}

/// Sets the taint or takes it away; whoever else has set one keeps it.
pub(super) fn taint(node: &mut Node, pressure: bool) {
    let spec = node.spec.get_or_insert_default();
    let mut taints = spec.taints.take().unwrap_or_default();
    let is_there = taints.iter().any(|t| t.key == DISK_PRESSURE);
    if pressure && !is_there {
        taints.push(Taint {
            key: DISK_PRESSURE.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    } else if !pressure {
        taints.retain(|t| t.key != DISK_PRESSURE);
    }
    spec.taints = (!taints.is_empty()).then_some(taints);
}

#[cfg(test)]
mod tests {
    use gantry_nodeagent_api::{PodPhase, PodReason};
    use serde_json::json;

    use super::super::lab::Lab;
    use super::super::pods;
    use super::super::world::Key;

    #[test]
    fn a_node_without_space_takes_no_new_pods_and_says_so() {
        let mut lab = Lab::new(&["a"]);
        lab.publish("sbc", "1.0.0", json!({}));
        lab.deploy("sbc", json!({"replicas": 1}));
        lab.settle();
        let report = |lab: &mut Lab, why: &str| {
            lab.obey();
            let mut status = lab.world.agents.get("a").unwrap().status.clone().unwrap();
            status.disk_pressure = why.to_owned();
            lab.world.agents.reported("a", status, lab.now_ms);
            lab.settle()
        };
        let shown = |lab: &Lab| {
            let node = lab.world.objects.nodes[&Key::new("", "a")].clone();
            let taints = node.spec.as_ref().unwrap().taints.clone().unwrap_or_default();
            let conditions = node.status.as_ref().unwrap().conditions.clone().unwrap();
            let condition = conditions.iter().find(|c| c.type_ == super::CONDITION).unwrap();
            let keys: Vec<String> = taints.into_iter().map(|t| t.key).collect();
            (condition.status.clone(), keys)
        };
        report(&mut lab, "");
        assert_eq!(shown(&lab), ("False".to_owned(), vec![]));
        report(&mut lab, "1Mi are free");
        assert_eq!(
            shown(&lab),
            ("True".to_owned(), vec![super::DISK_PRESSURE.to_owned()])
        );
        lab.change("sbc", |spec| spec.replicas = 2);
        let told = report(&mut lab, "1Mi are free");
        assert!(told.iter().any(|t| t.ends_with(" FailedScheduling")), "{told:?}");
        let placed = |lab: &Lab| {
            lab.world
                .objects
                .pods
                .values()
                .filter(|p| pods::node(p).is_some())
                .count()
        };
        assert_eq!(placed(&lab), 1);
        report(&mut lab, "");
        assert_eq!((shown(&lab).1, placed(&lab)), (vec![], 2));
    }

    #[test]
    fn an_evicted_instance_says_why_and_is_replaced() {
        let mut lab = Lab::new(&["a"]);
        lab.publish("sbc", "1.0.0", json!({}));
        lab.deploy("sbc", json!({"replicas": 1}));
        lab.settle();
        lab.obey();
        lab.settle();
        let names = |lab: &Lab| lab.pods("sbc").into_keys().collect::<Vec<_>>();
        let first = names(&lab);
        let mut status = lab.world.agents.get("a").unwrap().status.clone().unwrap();
        for seen in status.pods.values_mut() {
            seen.phase = PodPhase::Failed;
            seen.reason = Some(PodReason::Evicted);
            seen.message = "Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\".".to_owned();
        }
        lab.world.agents.reported("a", status, lab.now_ms);
        let told = lab.settle();
        assert!(told.iter().any(|t| t.ends_with(" Evicted")), "{told:?}");
        let gone = lab.world.objects.pods[&Key::new("default", &first[0])].clone();
        let status = gone.status.as_ref().unwrap();
        assert_eq!(
            (pods::phase(&gone), status.reason.as_deref()),
            ("Failed", Some("Evicted"))
        );
        assert!(status.message.as_ref().unwrap().starts_with("Usage of EmptyDir"));
        lab.run_for(5_000);
        let second = names(&lab);
        assert!(second.len() == 1 && second != first, "{second:?}");
    }
}
