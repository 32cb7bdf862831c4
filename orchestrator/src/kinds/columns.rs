//! Columns of `kubectl get`.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cells::{
    count, event_object, event_seen, node_address, node_roles, node_status, or_none, selector_text,
    service_ports, size, slice_endpoints, slice_ports, template_parts, topology_cpus, topology_held,
};
use super::claims;
use super::path::{at, text};
use super::podcells::{pod_ready, pod_restarts, pod_status};

/// How a column gets its value.
#[derive(Clone, Copy)]
pub enum Cell {
    /// At a JSON pointer, as it is.
    At(&'static str),
    /// Age of the RFC 3339 time at a JSON pointer.
    Age(&'static str),
    /// Computed.
    Of(fn(&Value) -> Value),
}

/// One column.
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type.
    pub type_: &'static str,
    /// Only with `-o wide`.
    pub wide: bool,
    /// Where the value comes from.
    pub cell: Cell,
}

impl Column {
    const fn new(name: &'static str, type_: &'static str, wide: bool, cell: Cell) -> Self {
        Self {
            name,
            type_,
            wide,
            cell,
        }
    }

    /// The value for one object.
    pub fn value(&self, object: &Value, now: OffsetDateTime) -> Value {
        match self.cell {
            Cell::At(pointer) => at(object, pointer).clone(),
            Cell::Age(pointer) => match OffsetDateTime::parse(text(object, pointer), &Rfc3339) {
                Ok(since) => json!(human_age((now - since).whole_seconds())),
                Err(_) => json!("<unknown>"),
            },
            Cell::Of(compute) => compute(object),
        }
    }
}

/// Seconds as kubectl prints them: two digits of precision.
pub fn human_age(seconds: i64) -> String {
    let s = seconds.max(0);
    let (minutes, hours, days) = (s / 60, s / 3600, s / 86_400);
    match () {
        () if s < 120 => format!("{s}s"),
        () if minutes < 10 && s % 60 != 0 => format!("{minutes}m{}s", s % 60),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 && minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 && hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        () => format!("{days}d"),
    }
}

const fn shown(name: &'static str, cell: Cell) -> Column {
    Column::new(name, "string", false, cell)
}
const fn number(name: &'static str, cell: Cell) -> Column {
    Column::new(name, "integer", false, cell)
}
const fn wide(name: &'static str, cell: Cell) -> Column {
    Column::new(name, "string", true, cell)
}
const AGE: Column = shown("Age", Cell::Age("/metadata/creationTimestamp"));

/// Namespace.
pub(super) const NAMESPACE: &[Column] = &[shown("Status", Cell::At("/status/phase")), AGE];
/// Node.
pub(super) const NODE: &[Column] = &[
    shown("Status", Cell::Of(node_status)),
    shown("Roles", Cell::Of(node_roles)),
    AGE,
    shown("Version", Cell::At("/status/nodeInfo/kubeletVersion")),
    wide("Internal-IP", Cell::Of(node_address)),
    wide("OS-Image", Cell::At("/status/nodeInfo/osImage")),
    wide("Kernel-Version", Cell::At("/status/nodeInfo/kernelVersion")),
    wide(
        "Container-Runtime",
        Cell::At("/status/nodeInfo/containerRuntimeVersion"),
    ),
];
/// Pod.
pub(super) const POD: &[Column] = &[
    shown("Ready", Cell::Of(pod_ready)),
    shown("Status", Cell::Of(pod_status)),
    shown("Restarts", Cell::Of(pod_restarts)),
    AGE,
    wide("IP", Cell::Of(|pod| or_none(pod, "/status/podIP"))),
    wide("Node", Cell::Of(|pod| or_none(pod, "/spec/nodeName"))),
];
/// Service.
pub(super) const SERVICE: &[Column] = &[
    shown("Type", Cell::At("/spec/type")),
    shown("Cluster-IP", Cell::Of(|s| or_none(s, "/spec/clusterIP"))),
    shown("External-IP", Cell::Of(|_| json!("<none>"))),
    shown("Port(s)", Cell::Of(service_ports)),
    AGE,
    wide("Selector", Cell::Of(|s| selector_text(at(s, "/spec/selector")))),
];
/// EndpointSlice.
pub(super) const ENDPOINT_SLICE: &[Column] = &[
    shown("AddressType", Cell::At("/addressType")),
    shown("Ports", Cell::Of(slice_ports)),
    shown("Endpoints", Cell::Of(slice_endpoints)),
    AGE,
];
/// ConfigMap.
pub(super) const CONFIG_MAP: &[Column] = &[
    number(
        "Data",
        Cell::Of(|c| json!(size(c, "/data") + size(c, "/binaryData"))),
    ),
    AGE,
];
/// Secret.
pub(super) const SECRET: &[Column] = &[
    shown("Type", Cell::At("/type")),
    number("Data", Cell::Of(|s| json!(size(s, "/data")))),
    AGE,
];
/// PersistentVolumeClaim.
pub(super) const CLAIM: &[Column] = &[
    shown("Status", Cell::Of(claims::status)),
    shown("Volume", Cell::Of(|c| claims::of_volume(c, "/spec/volumeName"))),
    shown(
        "Capacity",
        Cell::Of(|c| claims::of_volume(c, "/status/capacity/storage")),
    ),
    shown("Access Modes", Cell::Of(claims::modes)),
    shown("StorageClass", Cell::At("/spec/storageClassName")),
    AGE,
    wide("VolumeMode", Cell::At("/spec/volumeMode")),
];
/// Event.
pub(super) const EVENT: &[Column] = &[
    shown("Last Seen", Cell::Of(event_seen)),
    shown("Type", Cell::At("/type")),
    shown("Reason", Cell::At("/reason")),
    shown("Object", Cell::Of(event_object)),
    shown("Message", Cell::At("/message")),
];
/// Lease.
pub(super) const LEASE: &[Column] = &[shown("Holder", Cell::At("/spec/holderIdentity")), AGE];
/// Deployment.
pub(super) const DEPLOYMENT: &[Column] = &[
    shown(
        "Ready",
        Cell::Of(|d| {
            json!(format!(
                "{}/{}",
                count(d, "/status/readyReplicas"),
                count(d, "/spec/replicas")
            ))
        }),
    ),
    number(
        "Up-to-date",
        Cell::Of(|d| json!(count(d, "/status/updatedReplicas"))),
    ),
    number(
        "Available",
        Cell::Of(|d| json!(count(d, "/status/availableReplicas"))),
    ),
    AGE,
    wide("Containers", Cell::Of(|d| template_parts(d, "/name"))),
    wide("Images", Cell::Of(|d| template_parts(d, "/image"))),
    wide(
        "Selector",
        Cell::Of(|d| selector_text(at(d, "/spec/selector/matchLabels"))),
    ),
];
/// ReplicaSet.
pub(super) const REPLICA_SET: &[Column] = &[
    number("Desired", Cell::Of(|r| json!(count(r, "/spec/replicas")))),
    number("Current", Cell::Of(|r| json!(count(r, "/status/replicas")))),
    number("Ready", Cell::Of(|r| json!(count(r, "/status/readyReplicas")))),
    AGE,
    wide("Containers", Cell::Of(|r| template_parts(r, "/name"))),
    wide("Images", Cell::Of(|r| template_parts(r, "/image"))),
];
/// NfPackage.
pub(super) const NF_PACKAGE: &[Column] = &[
    shown("Package", Cell::At("/spec/package")),
    shown("Version", Cell::At("/spec/version")),
    shown("Role", Cell::At("/spec/role")),
    shown("Family", Cell::At("/spec/family")),
    AGE,
    wide("Program", Cell::Of(|p| or_none(p, "/spec/program"))),
    wide("Description", Cell::At("/spec/description")),
];
/// NetworkFunction.
pub(super) const NETWORK_FUNCTION: &[Column] = &[
    shown("Package", Cell::At("/spec/package")),
    shown("Version", Cell::At("/spec/version")),
    shown(
        "Ready",
        Cell::Of(|f| {
            json!(format!(
                "{}/{}",
                count(f, "/status/readyReplicas"),
                count(f, "/spec/replicas")
            ))
        }),
    ),
    number(
        "Draining",
        Cell::Of(|f| json!(count(f, "/status/drainingReplicas"))),
    ),
    number("Sessions", Cell::At("/status/sessions")),
    shown("VIP", Cell::At("/status/vip")),
    AGE,
    wide("Revision", Cell::At("/status/revision")),
    wide("Message", Cell::At("/status/message")),
];
/// NetworkService.
pub(super) const NETWORK_SERVICE: &[Column] = &[
    shown(
        "Ready",
        Cell::Of(|s| {
            json!(format!(
                "{}/{}",
                count(s, "/status/readyFunctions"),
                size(s, "/spec/functions")
            ))
        }),
    ),
    AGE,
    wide("Message", Cell::At("/status/message")),
];
/// Network.
pub(super) const NETWORK: &[Column] = &[
    shown("Type", Cell::At("/spec/type")),
    shown("CIDR", Cell::At("/spec/cidr")),
    shown("Service-CIDR", Cell::At("/spec/serviceCidr")),
    AGE,
];
/// NodeTopology.
pub(super) const NODE_TOPOLOGY: &[Column] = &[
    number("CPUs", Cell::Of(topology_cpus)),
    shown("Shared", Cell::At("/status/sharedCpus")),
    shown("Exclusive", Cell::Of(topology_held)),
    AGE,
];
/// Operation.
pub(super) const OPERATION: &[Column] = &[
    shown("Function", Cell::At("/spec/function")),
    shown("Asked", Cell::At("/spec/asked")),
    shown("Phase", Cell::At("/status/phase")),
    shown("Message", Cell::At("/status/message")),
    AGE,
];
