//! Keys and values of the maps. `repr(C)` without padding bytes: the kernel compares keys bytewise.

/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;
/// IP protocol number of SCTP (RFC 9260).
pub const SCTP: u8 = 132;

/// Map CONFIG, one entry: what the node is, and which object made the maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Network of the node's pods.
    pub pod_net: u32,
    /// Its mask.
    pub pod_mask: u32,
    /// Network of the service addresses.
    pub service_net: u32,
    /// Its mask.
    pub service_mask: u32,
    /// Interface index of the host device's peer: what the host sends enters there.
    pub host_peer: u32,
    /// [`crate::LAYOUT_VERSION`] of whoever made the maps.
    pub layout: u32,
    /// Next backend id never used before (0: none given yet). Userspace only.
    pub next_backend: u32,
    /// Raised before tables are written. Userspace only.
    pub tables: u32,
    /// SHA-256 of the loaded object. Userspace only.
    pub object_hash: [u8; 32],
}

impl Config {
    /// Is the address one of this node's pods' (or the gateway's)?
    #[inline(always)]
    pub fn is_pod_net(&self, ip: u32) -> bool {
        self.pod_mask != 0 && ip & self.pod_mask == self.pod_net
    }

    /// Is the address a service's?
    #[inline(always)]
    pub fn is_service_net(&self, ip: u32) -> bool {
        self.service_mask != 0 && ip & self.service_mask == self.service_net
    }
}

/// [`Pod::flags`]: this is the host itself; its traffic enters its end of the host device.
pub const POD_IS_HOST: u16 = 1;

/// Map PODS, by address: where a packet to a local address goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Interface index of the host's end of the pod's veth (of the gateway device for the host).
    pub ifindex: u32,
    /// MAC address of the receiving end.
    pub mac: [u8; 6],
    /// [`POD_IS_HOST`] or 0.
    pub flags: u16,
}

/// Tells those who have their subnets together from others: pods of one realm reach what is behind each other, those of
/// another never do. All zeros: nobody's.
pub type Realm = [u32; 3];
/// Bits of one.
pub const REALM_BITS: u32 = 96;

/// Map SENDERS, by interface index of the host's end of a pod's veth: who sends there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Pods of one group have one share (see [`crate::share`]). The interface of one that was the first of them.
    pub group: u32,
    /// Whose subnets it reaches, and who reaches those behind it.
    pub realm: Realm,
    /// Tells the group from others. Userspace only.
    pub name: [u8; 16],
}

/// What is matched in map SUBNETS, by longest prefix of [`REALM_BITS`] and those of the address. The value is the own address of the
/// pod that the subnet is behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of whoever sends, or is sent from.
    pub realm: Realm,
    /// Address as on the wire, since bits are compared from its start.
    pub address: [u8; 4],
}

impl Place {
    /// Of one address.
    #[inline(always)]
    pub fn of(realm: &Realm, address: u32) -> Place {
        Place {
            realm: *realm,
            address: address.to_be_bytes(),
        }
    }
}

/// Key of map SERVICES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Virtual address.
    pub vip: u32,
    /// Port on it.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

/// Value of map SERVICES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Which entry of map TABLES is this service's.
    pub index: u32,
}

/// Value of map TABLES, by [`Service::index`]: backend ids, 0 where there is none. A few more than the
/// [`crate::MAGLEV_SLOTS`] that are used: the verifier's bounds are bits.
pub type Table = [u32; crate::MAGLEV_SLOTS.next_power_of_two() as usize];

/// [`Backend::state`]: takes new flows.
pub const ACTIVE: u8 = 1;
/// [`Backend::state`]: keeps the flows it has.
pub const DRAINING: u8 = 2;

/// Map BACKENDS, by backend id (ids start at 1 and are never used twice).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Pod address.
    pub ip: u32,
    /// Index of the service it belongs to.
    pub service: u32,
    /// Port in the pod.
    pub port: u16,
    /// [`ACTIVE`] or [`DRAINING`].
    pub state: u8,
    /// Always 0.
    pub pad: u8,
    /// A UDP flow that was silent both ways for longer, in seconds, is a new flow.
    pub udp_idle_s: u32,
}

/// Per-CPU map BACKEND_STATS, by backend id. Counts what goes towards the backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Flows given to it.
    pub new_flows: u64,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of those, link headers included.
    pub bytes: u64,
}

/// Key of maps FLOWS and REVERSE: a packet's addresses as it arrives at the program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Map FLOWS only: the pod that the source is behind ([`crate::behind::tag`]), since two may have the same subnet; else 0.
    pub behind: [u8; 3],
}

impl FlowKey {
    /// The key that the other direction's packets have.
    #[inline(always)]
    pub fn swapped(&self) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            protocol: self.protocol,
            behind: [0; 3],
        }
    }
}

/// Value of map FLOWS: between a client and a service address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Backend id.
    pub backend: u32,
    /// Monotonic clock of the last packet in either direction, in seconds.
    pub last_seen_s: u32,
    /// 1 after a packet that did not open the flow: the next opening one is a new flow.
    pub established: u32,
}

/// Value of map REVERSE: what a reply of the backend must look like.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reverse {
    /// Source address to give it: the service's.
    pub vip: u32,
    /// Destination address to give it; differs from the packet's when a pod reached itself.
    pub client: u32,
    /// Source port to give it; with [`ASKED`] the destination port.
    pub vip_port: u16,
    /// [`TRANSLATED`], [`DIRECT`] or [`ASKED`].
    pub direct: u16,
}

/// [`Reverse::direct`]: the client talks to the service.
pub const TRANSLATED: u16 = 0;
/// [`Reverse::direct`]: the client talks to the backend directly, from the same ports, without the service.
pub const DIRECT: u16 = 1;
/// [`Reverse::direct`]: the client is behind a pod, and has asked the host from that pod's address.
pub const ASKED: u16 = 2;

/// Key of map FRAGMENTS (RFC 791: the first four name a datagram).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Identification field.
    pub id: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
    /// Own address of the pod that the source is behind, since two may have the same subnet; else 0.
    pub behind: u32,
}

/// Value of map FRAGMENTS: the addresses that the first fragment got.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// New source address.
    pub src: u32,
    /// New destination address.
    pub dst: u32,
}

#[cfg(feature = "user")]
mod user {
    macro_rules! plain {
        ($($t:ident),*) => {$(
            // SAFETY: repr(C), integers and arrays of integers only, no padding (checked by `sizes`).
            unsafe impl aya::Pod for super::$t {}
        )*};
    }
    plain!(
        Config,
        Pod,
        Sender,
        Place,
        ServiceKey,
        Service,
        Backend,
        BackendStats,
        FlowKey,
        Flow,
        Reverse
    );
    // SAFETY: repr(C), four integers of one size.
    unsafe impl aya::Pod for crate::share::Share {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_of::<Config>(), 32 + 32);
        assert_eq!(size_of::<Pod>(), 12);
        assert_eq!(size_of::<Sender>(), 32);
        assert_eq!(size_of::<Place>(), 16);
        assert_eq!(size_of::<Realm>() * 8, REALM_BITS as usize);
        assert_eq!(size_of::<ServiceKey>(), 8);
        assert_eq!(size_of::<Service>(), 4);
        assert_eq!(size_of::<Backend>(), 16);
        assert_eq!(size_of::<BackendStats>(), 24);
        assert_eq!(size_of::<FlowKey>(), 16);
        assert_eq!(size_of::<Flow>(), 12);
        assert_eq!(size_of::<Reverse>(), 12);
        assert_eq!(size_of::<FragmentKey>(), 16);
        assert_eq!(size_of::<Fragment>(), 8);
    }

    #[test]
    fn an_unconfigured_node_owns_no_network() {
        assert!(!Config::default().is_pod_net(0));
        assert!(!Config::default().is_service_net(0x0a56_0001));
    }
}
