//! The decisions: does a packet stay on its flow, which Maglev slot, what do the headers become.

use crate::MAGLEV_SLOTS;
use crate::layout::{ACTIVE, Backend, Config, DRAINING, Flow, FlowKey, Pod, Reverse, TRANSLATED, UDP};
use crate::packet::{Ipv4, Ports};

/// Is the source of a packet that entered at interface `ifindex` the sender's own? `owner`: the pod whose address it is. The host may
/// send from all.
#[inline(always)]
pub fn is_own(config: &Config, ifindex: u32, owner: Option<&Pod>) -> bool {
    owner.is_some_and(|pod| pod.ifindex == ifindex) || ifindex == config.host_peer
}

/// What to do with a packet to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowVerdict {
    /// It belongs to a known flow: same backend.
    Keep,
    /// New flow: pick a backend.
    Pick,
}

/// Decides whether a packet stays on the backend of the flow that is on record.
/// `backend`: the flow's backend, `None` if it is gone. `opens`: see [`crate::packet::opens`].
///
/// A retransmitted opening packet stays (the flow is not established), unless its backend drains.
#[inline(always)]
pub fn flow_verdict(
    protocol: u8,
    flow: &Flow,
    backend: Option<&Backend>,
    opens: bool,
    now_s: u32,
) -> FlowVerdict {
    let Some(backend) = backend else {
        return FlowVerdict::Pick;
    };
    let silent_s = now_s.wrapping_sub(flow.last_seen_s) as i32;
    let idle = protocol == UDP && silent_s > 0 && silent_s as u32 > backend.udp_idle_s;
    if idle || (opens && (flow.established != 0 || backend.state == DRAINING)) {
        return FlowVerdict::Pick;
    }
    FlowVerdict::Keep
}

/// May a new flow of service `service` go to this backend?
#[inline(always)]
pub fn takes_new(backend: &Backend, service: u32) -> bool {
    backend.state == ACTIVE && backend.service == service
}

/// Hash of a flow (murmur3's 32-bit mixing over the key's words): spreads neighbouring ports and addresses.
#[inline(always)]
pub fn flow_hash(key: &FlowKey) -> u32 {
    let mut h = mix(0x9747_b28c, key.src);
    h = mix(h, key.dst);
    h = mix(h, (key.sport as u32) << 16 | key.dport as u32);
    h ^= key.protocol as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[inline(always)]
const fn mix(h: u32, word: u32) -> u32 {
    let k = word
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593);
    (h ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// The `attempt`-th slot of its service's table for a flow: a multiplication, by which the kernel's verifier sees that
/// the slot is inside the table.
#[inline(always)]
pub const fn maglev_slot(hash: u32, attempt: u32) -> usize {
    let mixed = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b1));
    ((mixed as u64 * MAGLEV_SLOTS as u64) >> 32) as usize
}

/// The addresses that a packet leaves with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Ports.
    pub ports: Ports,
}

impl Addresses {
    /// Those that it came with.
    #[inline(always)]
    pub fn unchanged(ip: &Ipv4, ports: Ports) -> Addresses {
        Addresses {
            src: ip.src,
            dst: ip.dst,
            ports,
        }
    }

    /// Client to service, sent on to `backend`. A pod that reaches itself through a service sees the
    /// service as the client: no IP stack takes packets from its own address off a wire.
    #[inline(always)]
    pub fn to_backend(key: &FlowKey, backend: &Backend) -> Addresses {
        let src = if key.src == backend.ip { key.dst } else { key.src };
        Addresses {
            src,
            dst: backend.ip,
            ports: Ports {
                src: key.sport,
                dst: backend.port,
            },
        }
    }

    /// Reply of a backend, made to come from the service.
    #[inline(always)]
    pub fn to_client(key: &FlowKey, reverse: &Reverse) -> Addresses {
        let ports = Ports {
            src: reverse.vip_port,
            dst: key.dport,
        };
        Addresses {
            src: reverse.vip,
            dst: reverse.client,
            ports,
        }
    }

    /// Key in map REVERSE of the replies to a packet that leaves with these addresses.
    #[inline(always)]
    pub fn reply_key(&self, protocol: u8) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: self.src,
            sport: self.ports.dst,
            dport: self.ports.src,
            protocol,
            behind: [0; 3],
        }
    }
}

/// Key in map FLOWS of the flow that a reply with the key `reply` belongs to: undoes [`reverse_of`]. `behind`: tag of the pod that
/// the client is behind.
#[inline(always)]
pub fn flow_of(reply: &FlowKey, reverse: &Reverse, behind: [u8; 3]) -> FlowKey {
    FlowKey {
        src: reverse.client,
        dst: reverse.vip,
        sport: reply.dport,
        dport: reverse.vip_port,
        protocol: reply.protocol,
        behind,
    }
}

/// Entry of map REVERSE for the flow `key`.
#[inline(always)]
pub fn reverse_of(key: &FlowKey) -> Reverse {
    Reverse {
        vip: key.dst,
        client: key.src,
        vip_port: key.dport,
        direct: TRANSLATED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::TCP;
    use proptest::prelude::*;

    const VIP: u32 = 0x0a56_0001;
    const POD: u32 = 0x0a55_0002;
    const CLIENT: u32 = 0x0a55_0003;

    fn backend(state: u8) -> Backend {
        Backend {
            ip: POD,
            service: 3,
            port: 5080,
            state,
            pad: 0,
            udp_idle_s: 300,
        }
    }

    fn flow(last_seen_s: u32, established: u32) -> Flow {
        Flow {
            backend: 1,
            last_seen_s,
            established,
        }
    }

    fn key(src: u32) -> FlowKey {
        FlowKey {
            src,
            dst: VIP,
            sport: 40000,
            dport: 5060,
            protocol: UDP,
            behind: [0; 3],
        }
    }

    #[test]
    fn addresses_are_sent_from_by_their_owner_and_the_host() {
        let config = Config {
            pod_net: 0x0a55_0000,
            pod_mask: 0xffff_ff00,
            service_net: 0x0a56_0000,
            service_mask: 0xffff_0000,
            host_peer: 3,
            ..Config::default()
        };
        let pod = |ifindex| Pod {
            ifindex,
            ..Pod::default()
        };
        let (own, host) = (7, 3);
        let (owner, other) = (pod(own), pod(8));
        assert!(is_own(&config, own, Some(&owner)));
        for owner in [Some(&other), None] {
            assert!(!is_own(&config, own, owner));
            assert!(is_own(&config, host, owner));
        }
    }

    #[test]
    fn established_flows_stay_even_on_a_draining_backend() {
        for state in [ACTIVE, DRAINING] {
            let b = backend(state);
            assert_eq!(
                flow_verdict(UDP, &flow(100, 1), Some(&b), false, 400),
                FlowVerdict::Keep
            );
            assert_eq!(
                flow_verdict(TCP, &flow(100, 1), Some(&b), false, 9000),
                FlowVerdict::Keep
            );
        }
    }

    #[test]
    fn gone_backends_idle_udp_and_openings_pick_anew() {
        let b = backend(ACTIVE);
        assert_eq!(
            flow_verdict(UDP, &flow(100, 1), None, false, 100),
            FlowVerdict::Pick
        );
        assert_eq!(
            flow_verdict(UDP, &flow(100, 1), Some(&b), false, 401),
            FlowVerdict::Pick
        );
        assert_eq!(
            flow_verdict(TCP, &flow(100, 1), Some(&b), true, 100),
            FlowVerdict::Pick
        );
    }

    #[test]
    fn how_long_udp_may_be_silent_is_the_backends_own() {
        let b = Backend {
            udp_idle_s: 30,
            ..backend(DRAINING)
        };
        for (now_s, wanted) in [(130, FlowVerdict::Keep), (131, FlowVerdict::Pick)] {
            assert_eq!(flow_verdict(UDP, &flow(100, 1), Some(&b), false, now_s), wanted);
            assert_eq!(
                flow_verdict(TCP, &flow(100, 1), Some(&b), false, now_s),
                FlowVerdict::Keep
            );
        }
        let for_ever = Backend {
            udp_idle_s: u32::MAX,
            ..b
        };
        assert_eq!(
            flow_verdict(UDP, &flow(100, 1), Some(&for_ever), false, 9000),
            FlowVerdict::Keep
        );
    }

    #[test]
    fn a_repeated_opening_stays_unless_the_backend_drains() {
        let f = flow(100, 0);
        assert_eq!(
            flow_verdict(TCP, &f, Some(&backend(ACTIVE)), true, 101),
            FlowVerdict::Keep
        );
        assert_eq!(
            flow_verdict(TCP, &f, Some(&backend(DRAINING)), true, 101),
            FlowVerdict::Pick
        );
    }

    #[test]
    fn a_clock_read_a_moment_earlier_on_another_cpu_is_not_idleness() {
        assert_eq!(
            flow_verdict(UDP, &flow(100, 1), Some(&backend(ACTIVE)), false, 99),
            FlowVerdict::Keep
        );
    }

    #[test]
    fn only_active_backends_of_the_same_service_take_new_flows() {
        assert!(takes_new(&backend(ACTIVE), 3));
        assert!(!takes_new(&backend(DRAINING), 3));
        assert!(!takes_new(&backend(ACTIVE), 4));
    }

    #[test]
    fn hairpin_comes_from_the_service_and_goes_back() {
        let k = key(POD);
        let there = Addresses::to_backend(&k, &backend(ACTIVE));
        assert_eq!((there.src, there.dst), (VIP, POD));
        let back = there.reply_key(UDP);
        let home = Addresses::to_client(&back, &reverse_of(&k));
        assert_eq!((home.src, home.dst), (VIP, POD));
        assert_eq!(
            home.ports,
            Ports {
                src: 5060,
                dst: 40000
            }
        );
    }

    proptest! {
        #[test]
        fn a_reply_undoes_the_translation(sport: u16, dport: u16, client: u32, vip: u32, port: u16) {
            prop_assume!(client != POD);
            let k = FlowKey { src: client, dst: vip, sport, dport, protocol: TCP, behind: [0; 3] };
            let there = Addresses::to_backend(&k, &Backend { port, ..backend(ACTIVE) });
            let home = Addresses::to_client(&there.reply_key(TCP), &reverse_of(&k));
            prop_assert_eq!((home.src, home.dst), (vip, client));
            prop_assert_eq!(home.ports, Ports { src: dport, dst: sport });
            prop_assert_eq!(flow_of(&there.reply_key(TCP), &reverse_of(&k), [0; 3]), k);
        }

        #[test]
        fn slots_stay_inside_their_table(hash: u32, attempt in 0u32..4) {
            prop_assert!(maglev_slot(hash, attempt) < MAGLEV_SLOTS as usize);
        }
    }

    #[test]
    fn neighbouring_ports_spread_over_the_slots() {
        let mut hits = vec![0u32; MAGLEV_SLOTS as usize];
        for sport in 0..65_535u16 {
            let h = flow_hash(&FlowKey { sport, ..key(CLIENT) });
            hits[maglev_slot(h, 0)] += 1;
        }
        let (min, max) = (hits.iter().min().unwrap(), hits.iter().max().unwrap());
        assert!(*min > 30 && *max < 110, "64 expected a slot, found {min}..{max}");
    }
}
