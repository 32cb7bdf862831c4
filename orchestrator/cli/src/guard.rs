//! Switching a protection of the control plane off, so that tests can show that the same case does harm without it (its
//! control). Names:
//!
//! | name | without it |
//! |---|---|
//! | `json-patch` | operations, copies and nesting of a JSON patch are not bounded |
//! | `merge-patch` | nor is how long the lists of a strategic merge are |
//! | `body` | nor are request bodies, in size and time |
//! | `arriving` | nor what all bodies of one user come to, however many are half sent |
//! | `handshakes` | of too many handshakes the oldest is given up, whoever's it is |
//! | `share` | every request works at once, however many there are |
//! | `connections` | connections and what is half sent stay as long as the client likes |
//! | `sessions` | exec, attach and port-forward are not counted, and end only when somebody ends them |
//! | `nesting` | nor is how deep an object is |
//! | `values` | nor how many values are in one body |
//! | `object-size` | nor how large an object is |
//! | `namespace-bytes` | nor how much one namespace keeps |
//! | `selector` | nor how long a selector is |
//! | `rules` | no rule of a kind is asked, names and references included |
//! | `pod-security` | nor the level of a namespace, neither by the API nor by the core |
//! | `replicas` | an owner's pods are made all at once, however many wait |
//! | `templates` | templates are rendered in the orchestrator itself, and take what they like |
//! | `events` | a namespace's Events are kept for an hour, however many there are |
//! | `image-space` | an image that is taken over may fill the disk to its last byte |
//! | `group-share` | one group can fill the nodes' tables of services, and a node's configuration |
//! | `config-room` | the files and variables of pods may come to more than a node can be told |
//!
//! `GANTRY_TEST_UNGUARDED` lists names, with commas between. It is read only in debug builds.

use gantry_catalog::Bounds;
use gantry_images::Limits as ImageLimits;
use gantry_orchestrator::apiserver::Limits;
use gantry_orchestrator::core::Limits as CoreLimits;
use gantry_orchestrator::renderer::Renderer;

/// Longer than any test, and no time overflows by it.
const LONG: std::time::Duration = std::time::Duration::from_secs(86_400);
/// As many as a semaphore takes.
const MANY: usize = usize::MAX >> 8;

/// True if this protection is switched off.
fn off(protection: &str) -> bool {
    cfg!(debug_assertions)
        && std::env::var("GANTRY_TEST_UNGUARDED")
            .is_ok_and(|names| names.split(',').any(|name| name == protection))
}

/// The API server's limits, without those that are switched off.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    if off("json-patch") {
        limits.patch.operations = MANY;
        limits.patch.copied_bytes = MANY;
        limits.patch.depth = MANY;
    }
    if off("merge-patch") {
        limits.patch.comparisons = MANY;
    }
    if off("body") {
        (limits.body_bytes, limits.body_time) = (MANY, LONG);
    }
    if off("body") || off("arriving") {
        let arriving = &mut limits.connections.arriving;
        (arriving.per_user_bytes, arriving.total_bytes) = (MANY, MANY);
        limits.body_pause = LONG;
    }
    if off("handshakes") {
        limits.connections.fair_handshakes = false;
    }
    if off("share") {
        let share = &mut limits.share;
        (share.seats, share.heavy_seats, share.streams) = (MANY, MANY, MANY);
    }
    if off("unread") {
        let unread = &mut limits.connections.unread;
        (unread.per_user_bytes, unread.total_bytes) = (MANY, MANY);
    }
    if off("windows") {
        limits.connections.node_window = 64 << 20;
    }
    if off("sessions") {
        let share = &mut limits.share;
        (share.sessions, share.sessions_total, share.sessions_on_node) = (MANY, MANY, MANY);
        (share.session_message_bytes, share.session_idle) = (MANY, LONG);
    }
    if off("connections") {
        let connections = &mut limits.connections;
        (connections.per_user, connections.total, connections.handshakes) = (MANY, MANY, MANY);
        (connections.handshake, connections.head, connections.idle) = (LONG, LONG, LONG);
    }
    let objects = &mut limits.objects;
    for (protection, limit) in [
        ("nesting", &mut objects.depth),
        ("values", &mut objects.values),
        ("object-size", &mut objects.bytes),
        ("namespace-bytes", &mut objects.namespace_bytes),
        ("namespace-bytes", &mut objects.all_bytes),
        ("selector", &mut objects.selector_bytes),
        ("selector", &mut objects.selector_terms),
    ] {
        if off(protection) {
            *limit = MANY;
        }
    }
    if off("counts") {
        objects.counts = &[];
    }
    objects.rules = !off("rules");
    objects.pod_security = !off("pod-security");
    limits
}

/// The core's limits, without those that are switched off.
pub fn core_limits() -> CoreLimits {
    let mut limits = CoreLimits::default();
    if off("replicas") {
        limits.pods_a_pass = CoreLimits::NONE.pods_a_pass;
        limits.waiting_of_owner = CoreLimits::NONE.waiting_of_owner;
        limits.waiting_of_group = CoreLimits::NONE.waiting_of_group;
    }
    if off("templates") {
        limits.templates = Bounds::NONE;
    }
    if off("config-room") {
        limits.config = CoreLimits::NONE.config;
    }
    if off("events") {
        limits.events_in_namespace = CoreLimits::NONE.events_in_namespace;
    }
    if off("group-share") {
        limits.group_share = CoreLimits::NONE.group_share;
    }
    limits.pod_security = !off("pod-security");
    limits
}

/// The bounds on images, without those that are switched off.
pub fn image_limits() -> ImageLimits {
    let mut limits = ImageLimits::default();
    if off("image-space") {
        (limits.kept_free_percent, limits.kept_files_percent) = (0, 0);
    }
    limits
}

/// Who renders templates of others.
pub fn renderer() -> Renderer {
    match off("templates") {
        true => Renderer::Here,
        false => Renderer::of_this_binary(),
    }
}
