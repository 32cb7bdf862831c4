//! How much of the server one client can have. Values with their reasons; who assembles the server may change them.

use std::time::Duration;

use gantry_nodeagent_api::STREAM_WINDOW_BYTES;

use super::frames::FrameLimits;

/// All bounds of the API server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body in bytes, as in Kubernetes.
    pub body_bytes: usize,
    /// A body must be here after so long: 3 MiB at 100 KiB/s.
    pub body_time: Duration,
    /// Something of it must come after so long.
    pub body_pause: Duration,
    /// Patches.
    pub patch: PatchLimits,
    /// Objects.
    pub objects: ObjectLimits,
    /// Requests under way.
    pub share: ShareLimits,
    /// Connections.
    pub connections: ConnectionLimits,
}

/// What a patch may do. Operations of a JSON patch (RFC 6902) are small, what they make is not: `copy` doubles (CVE-2019-1002100).
#[derive(Clone, Copy, Debug)]
pub struct PatchLimits {
    /// Operations, as in Kubernetes.
    pub operations: usize,
    /// Bytes (as JSON) that all `copy` operations together may copy, as in Kubernetes: the size of a body.
    pub copied_bytes: usize,
    /// Nesting that an operation may make.
    pub depth: usize,
    /// Strategic merge: elements of a list times those of its patch, since each of these is looked for among those.
    pub comparisons: usize,
}

/// One object, and one question about objects.
#[derive(Clone, Copy, Debug)]
pub struct ObjectLimits {
    /// Lists and objects within each other. An object is parsed again from the store, and by clients within lists and events,
    /// by parsers that stop at 128: what they cannot read must not come in.
    pub depth: usize,
    /// Values in one body. Each takes some hundred bytes in memory, the text of one as little as 2.
    pub values: usize,
    /// Largest object in bytes as JSON: what etcd takes under Kubernetes.
    pub bytes: usize,
    /// Bytes of all objects of one namespace, of all namespaces that one person has made, and of all objects that are in none:
    /// they are in memory.
    pub namespace_bytes: usize,
    /// Objects of kinds that make work for all whenever something changes, of one namespace or person.
    pub counts: &'static [(&'static str, usize)],
    /// Bytes of all objects: what they come to in memory is some three times that.
    pub all_bytes: usize,
    /// Longest selector in bytes, labels and fields each.
    pub selector_bytes: usize,
    /// Requirements and values in one: each is compared with each object.
    pub selector_terms: usize,
    /// Whether the rules of kinds are asked at all.
    pub rules: bool,
    /// Whether the levels of namespaces are.
    pub pod_security: bool,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self {
            depth: 100,
            values: 150_000,
            bytes: 1536 << 10,
            namespace_bytes: 64 << 20,
            all_bytes: 128 << 20,
            counts: &[
                ("Namespace", 64),
                ("Service", 256),
                ("PersistentVolumeClaim", 500),
                ("Deployment", 500),
                ("ReplicaSet", 500),
                ("NetworkFunction", 500),
                ("NetworkService", 500),
            ],
            selector_bytes: 8 << 10,
            selector_terms: 256,
            rules: true,
            pod_security: true,
        }
    }
}

/// Requests at once. Seats are given to users in turn, and to the connections of each user in turn.
#[derive(Clone, Copy, Debug)]
pub struct ShareLimits {
    /// Requests in work: more than one, since each waits for the disk.
    pub seats: usize,
    /// Requests over many objects in work: they cost CPU, of which the others keep the rest.
    pub heavy_seats: usize,
    /// Requests of one connection that wait for a seat.
    pub waiting: usize,
    /// Requests of all that wait for a seat.
    pub waiting_total: usize,
    /// How long one may wait.
    pub wait: Duration,
    /// Watches and logs of one user: each holds some kilobytes.
    pub streams: usize,
    /// Sessions (exec, attach, port-forward) of one user: each is a process in a pod, and holds frames in both directions.
    pub sessions: usize,
    /// Sessions of all users together.
    pub sessions_total: usize,
    /// Logs, sessions and forwarded connections of one user on one node: half of what its agent takes at once.
    pub sessions_on_node: usize,
    /// Bytes of one message from the client of a session; kubectl sends 32 KiB at once.
    pub session_message_bytes: usize,
    /// A session in which nothing is said is ended after so long, as kubelet's `streamingConnectionIdleTimeout`.
    pub session_idle: Duration,
}

/// Connections and what may be open on one.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections of one user, some 40 KiB each when idle; a node has few.
    pub per_user: usize,
    /// Connections of all users together; those of nodes do not count.
    pub total: usize,
    /// Connections whose client is not known yet; for one more, one of them goes.
    pub handshakes: usize,
    /// Whether that is one of the address that has most.
    pub fair_handshakes: bool,
    /// A handshake may take so long.
    pub handshake: Duration,
    /// A request's head must be here after so long; HTTP/1.1 connections without a request are closed after it too.
    pub head: Duration,
    /// A connection without a request is closed after so long.
    pub idle: Duration,
    /// A peer that takes nothing of what is to be sent is cut off after so long.
    pub stall: Duration,
    /// HTTP/2: requests at once on one connection.
    pub streams: u32,
    /// HTTP/2: what may come of one request, and of all on one connection, ahead of whoever reads it.
    pub windows: (u32, u32),
    /// HTTP/2: frames that are of no request.
    pub frames: FrameLimits,
    /// Requests that arrive.
    pub arriving: ArrivingLimits,
    /// Answers that wait to be read.
    pub unread: UnreadLimits,
    /// What one stream of a node may send ahead of its reader.
    pub node_window: u32,
}

/// Requests are in memory until they are answered: what their bodies become there is some times their size.
#[derive(Clone, Copy, Debug)]
pub struct ArrivingLimits {
    /// Bytes of one user, heads and bodies.
    pub per_user_bytes: usize,
    /// Bytes of all users together.
    pub total_bytes: usize,
}

/// Answers are in memory until they are read.
#[derive(Clone, Copy, Debug)]
pub struct UnreadLimits {
    /// Bytes of one user; one answer is always let through.
    pub per_user_bytes: usize,
    /// Bytes of all users together.
    pub total_bytes: usize,
    /// An answer is not read when it has waited for so long.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 3 << 20,
            body_time: Duration::from_secs(30),
            body_pause: Duration::from_secs(5),
            patch: PatchLimits {
                operations: 10_000,
                copied_bytes: 3 << 20,
                depth: ObjectLimits::default().depth,
                comparisons: 1_000_000,
            },
            objects: ObjectLimits::default(),
            share: ShareLimits {
                seats: 64,
                heavy_seats: 2,
                waiting: 64,
                waiting_total: 4096,
                wait: Duration::from_secs(15),
                streams: 4000,
                sessions: 100,
                sessions_total: 400,
                sessions_on_node: 128,
                session_message_bytes: 256 << 10,
                session_idle: Duration::from_secs(4 * 3600),
            },
            connections: ConnectionLimits {
                per_user: 512,
                total: 2048,
                handshakes: 256,
                fair_handshakes: true,
                handshake: Duration::from_secs(10),
                head: Duration::from_secs(15),
                idle: Duration::from_secs(90),
                stall: Duration::from_secs(120),
                streams: 250,
                windows: (64 << 10, 256 << 10),
                frames: FrameLimits {
                    burst: 1000,
                    per_second: 100,
                },
                arriving: ArrivingLimits {
                    per_user_bytes: 32 << 20,
                    total_bytes: 64 << 20,
                },
                unread: UnreadLimits {
                    per_user_bytes: 64 << 20,
                    total_bytes: 192 << 20,
                    patience: Duration::from_secs(1),
                },
                node_window: STREAM_WINDOW_BYTES,
            },
        }
    }
}
