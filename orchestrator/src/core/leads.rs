//! A Service through which no pod can be reached, whatever pods do, says so: it selects none, or names a port that none has.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::endpoints::target_port;
use super::service_condition::{self, Trouble};
use super::world::{Key, Work};
use super::{meta, pods};

const CONDITION: &str = "LeadsToPods";

/// Says on a Service whether it leads nowhere.
pub fn tell(work: &mut Work<'_>, key: &Key, service: &Service) {
    let trouble = nowhere(work, service);
    service_condition::set(work, key, CONDITION, "False", trouble.as_ref());
}

/// Why no pod can ever be reached through a Service, or through one of its ports.
fn nowhere(work: &Work<'_>, service: &Service) -> Option<Trouble> {
    let spec = service.spec.as_ref()?;
    let Some(selector) = spec.selector.as_ref().filter(|s| !s.is_empty()) else {
        return Some(Trouble {
            reason: "NoSelector".to_owned(),
            message:
                "it selects no pods, and endpoints that are not pods are not served: give it a `selector`"
                    .to_owned(),
        });
    };
    let named = |port: &&ServicePort| matches!(port.target_port, Some(IntOrString::String(_)));
    let mut named = spec.ports.iter().flatten().filter(named).peekable();
    named.peek()?;
    let pods = work.objects.pods_in(meta::namespace(&service.metadata));
    let selects =
        |pod: &&Arc<Pod>| !pods::is_over(pod) && meta::selects(selector, pod.metadata.labels.as_ref());
    let pods: Vec<&Arc<Pod>> = pods.filter(selects).collect();
    let nobody = |port: &&ServicePort| pods.iter().all(|pod| target_port(pod, port).is_none());
    let missing = named.find(nobody).filter(|_| !pods.is_empty())?;
    let Some(IntOrString::String(name)) = &missing.target_port else {
        return None;
    };
    Some(Trouble {
        reason: "NoSuchPort".to_owned(),
        message: format!(
            "no pod that it selects has a port {name:?}, the `targetPort` of port {}: name it in `ports` of a container",
            missing.port
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::lab::Lab;
    use super::super::world::Object;
    use super::*;

    /// A pod that a Service `e` selects.
    fn pod(name: &str, ports: Value) -> Object {
        let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": "e"}});
        let container = json!({"name": "c", "image": "i", "ports": ports});
        let pod = json!({"metadata": metadata, "spec": {"nodeName": "n", "containers": [container]}});
        Object::Pod(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    /// What a Service of the pods with label `app: e` says of where it leads.
    fn leads(lab: &Lab) -> Option<(String, String)> {
        let service = &lab.world.objects.services[&Key::new("default", "e")];
        let conditions = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let mut found = conditions.filter(|c| c.type_ == CONDITION);
        found.next().map(|c| (c.reason.clone(), c.message.clone()))
    }

    fn put_service(lab: &mut Lab, spec: Value) {
        let metadata = json!({"name": "e", "namespace": "default", "uid": "s"});
        let service = json!({"metadata": metadata, "spec": spec});
        let service = Object::Service(Arc::new(serde_json::from_value(service).unwrap()));
        lab.world.objects.put(service);
    }

    #[test]
    fn a_service_says_which_named_port_no_pod_has_until_one_has_it() {
        let mut lab = Lab::new(&["n"]);
        let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "sip"}]);
        put_service(&mut lab, json!({"selector": {"app": "e"}, "ports": ports}));
        lab.settle();
        assert_eq!(leads(&lab), None, "nobody knows before there are pods");
        lab.world.objects.put(pod("p", json!([])));
        let told = lab.settle();
        let (reason, message) = leads(&lab).expect("it is told");
        assert_eq!(reason, "NoSuchPort");
        assert!(
            message.contains("\"sip\", the `targetPort` of port 81"),
            "{message}"
        );
        assert!(told.contains(&"e NoSuchPort".to_owned()), "{told:?}");
        lab.world
            .objects
            .put(pod("q", json!([{"name": "sip", "containerPort": 5060}])));
        lab.settle();
        assert_eq!(leads(&lab), None);
    }

    #[test]
    fn a_service_that_selects_nothing_says_so_until_it_does() {
        let mut lab = Lab::new(&["n"]);
        put_service(&mut lab, json!({"ports": [{"port": 80}]}));
        lab.settle();
        assert_eq!(leads(&lab).unwrap().0, "NoSelector");
        put_service(
            &mut lab,
            json!({"ports": [{"port": 80}], "selector": {"app": "e"}}),
        );
        lab.settle();
        assert_eq!(leads(&lab), None);
    }
}
