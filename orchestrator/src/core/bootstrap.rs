//! What must exist before anything else: the namespaces `default` and `kube-system`, the network `pod`.

use gantry_api::{Network, NetworkSpec, ObjectMeta};
use k8s_openapi::api::core::v1::Namespace;

use super::world::{Key, Work};

/// Name of the network that every pod is on.
pub const POD_NETWORK: &str = "pod";

/// Makes what is missing.
pub fn run(work: &mut Work<'_>) {
    for name in ["default", "kube-system"] {
        if !work.objects.namespaces.contains_key(&Key::new("", name)) {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            };
            work.create(Namespace {
                metadata,
                ..Default::default()
            });
        }
    }
    if !work.objects.networks.contains_key(&Key::new("", POD_NETWORK)) {
        let metadata = ObjectMeta {
            name: Some(POD_NETWORK.to_owned()),
            ..Default::default()
        };
        let spec = NetworkSpec {
            type_: "pod".to_owned(),
            cidr: work.settings.pod_cidr.to_string(),
            service_cidr: work.settings.service_cidr.to_string(),
        };
        work.create(Network::new(metadata, spec));
    }
}
