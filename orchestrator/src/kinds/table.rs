//! The rows.

use gantry_api as own;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use super::wire::through;
use super::{Kind, Scale, SubResource, claims, columns, defaults, honoured, packages, validate};

/// A namespaced kind of Kubernetes without anything special; rows say what differs.
const BASE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    categories: &[],
    namespaced: true,
    status: false,
    scale: None,
    subresources: &[],
    graceful: false,
    label_name: false,
    strategic: true,
    decode: through::<core::ConfigMap>,
    default: defaults::none,
    validate: validate::none,
    without_effect: honoured::none,
    packages: packages::none,
    columns: &[],
};

/// A kind of the group gantry.dev.
const OWN: Kind = Kind {
    group: own::GROUP,
    version: own::VERSION,
    strategic: false,
    categories: &["gantry"],
    ..BASE
};

const WORKLOAD_SCALE: Scale = Scale {
    spec_replicas: "/spec/replicas",
    status_replicas: "/status/replicas",
    selector: "/spec/selector",
};

const fn sub(
    name: &'static str,
    group: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> SubResource {
    SubResource {
        name,
        group_version: (group, "v1"),
        kind,
        verbs,
    }
}

const POD_SUBRESOURCES: &[SubResource] = &[
    sub("attach", "", "PodAttachOptions", &["create", "get"]),
    sub("binding", "", "Binding", &["create"]),
    sub("eviction", "policy", "Eviction", &["create"]),
    sub("exec", "", "PodExecOptions", &["create", "get"]),
    sub("log", "", "Pod", &["get"]),
    sub("portforward", "", "PodPortForwardOptions", &["create", "get"]),
    sub("resize", "", "Pod", &["get", "patch", "update"]),
];

/// Every kind there is.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short: &["ns"],
        namespaced: false,
        status: true,
        label_name: true,
        decode: through::<core::Namespace>,
        default: defaults::namespace,
        validate: validate::namespace,
        columns: columns::NAMESPACE,
        ..BASE
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        namespaced: false,
        status: true,
        decode: through::<core::Node>,
        validate: validate::node,
        without_effect: honoured::node,
        columns: columns::NODE,
        ..BASE
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short: &["po"],
        categories: &["all"],
        status: true,
        subresources: POD_SUBRESOURCES,
        graceful: true,
        decode: through::<core::Pod>,
        default: defaults::pod,
        validate: validate::pod,
        without_effect: honoured::pod,
        columns: columns::POD,
        ..BASE
    },
    Kind {
        kind: "Service",
        plural: "services",
        singular: "service",
        short: &["svc"],
        categories: &["all"],
        status: true,
        label_name: true,
        decode: through::<core::Service>,
        default: defaults::service,
        validate: validate::service,
        without_effect: honoured::service,
        columns: columns::SERVICE,
        ..BASE
    },
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        decode: through::<core::ConfigMap>,
        validate: validate::data,
        columns: columns::CONFIG_MAP,
        ..BASE
    },
    Kind {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        decode: through::<core::Secret>,
        default: defaults::secret,
        validate: validate::data,
        columns: columns::SECRET,
        ..BASE
    },
    Kind {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        status: true,
        decode: through::<core::PersistentVolumeClaim>,
        default: claims::default,
        validate: claims::validate,
        columns: columns::CLAIM,
        ..BASE
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        decode: through::<core::Event>,
        columns: columns::EVENT,
        ..BASE
    },
    Kind {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        decode: through::<discovery::EndpointSlice>,
        default: defaults::endpoint_slice,
        validate: validate::endpoint_slice,
        columns: columns::ENDPOINT_SLICE,
        ..BASE
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        decode: through::<coordination::Lease>,
        columns: columns::LEASE,
        ..BASE
    },
    Kind {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short: &["deploy"],
        categories: &["all"],
        status: true,
        scale: Some(WORKLOAD_SCALE),
        decode: through::<apps::Deployment>,
        default: defaults::deployment,
        validate: validate::workload,
        without_effect: honoured::workload,
        columns: columns::DEPLOYMENT,
        ..BASE
    },
    Kind {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short: &["rs"],
        categories: &["all"],
        status: true,
        scale: Some(WORKLOAD_SCALE),
        decode: through::<apps::ReplicaSet>,
        default: defaults::replica_set,
        validate: validate::workload,
        without_effect: honoured::workload,
        columns: columns::REPLICA_SET,
        ..BASE
    },
    Kind {
        kind: "NfPackage",
        plural: own::NfPackage::PLURAL,
        singular: "nfpackage",
        short: &["nfp"],
        namespaced: false,
        decode: through::<own::NfPackage>,
        validate: validate::nf_package,
        columns: columns::NF_PACKAGE,
        ..OWN
    },
    Kind {
        kind: "NetworkFunction",
        plural: own::NetworkFunction::PLURAL,
        singular: "networkfunction",
        short: &["nf"],
        categories: &["all", "gantry"],
        status: true,
        scale: Some(Scale {
            selector: "/status/selector",
            ..WORKLOAD_SCALE
        }),
        label_name: true,
        decode: through::<own::NetworkFunction>,
        validate: validate::network_function,
        packages: packages::of_function,
        columns: columns::NETWORK_FUNCTION,
        ..OWN
    },
    Kind {
        kind: "NetworkService",
        plural: own::NetworkService::PLURAL,
        singular: "networkservice",
        short: &["nsvc"],
        categories: &["all", "gantry"],
        status: true,
        decode: through::<own::NetworkService>,
        validate: validate::network_service,
        packages: packages::of_service,
        columns: columns::NETWORK_SERVICE,
        ..OWN
    },
    Kind {
        kind: "Network",
        plural: own::Network::PLURAL,
        singular: "network",
        namespaced: false,
        decode: through::<own::Network>,
        validate: validate::network,
        columns: columns::NETWORK,
        ..OWN
    },
    Kind {
        kind: "NodeTopology",
        plural: own::NodeTopology::PLURAL,
        singular: "nodetopology",
        short: &["nt"],
        namespaced: false,
        status: true,
        decode: through::<own::NodeTopology>,
        columns: columns::NODE_TOPOLOGY,
        ..OWN
    },
    Kind {
        kind: "Operation",
        plural: own::Operation::PLURAL,
        singular: "operation",
        short: &["op"],
        status: true,
        decode: through::<own::Operation>,
        columns: columns::OPERATION,
        ..OWN
    },
];
