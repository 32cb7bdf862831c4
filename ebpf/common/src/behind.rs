//! Subnets behind pods (the pool of a PGW, a range of devices): who sends from them, and where packets for them go.
//!
//! Two realms may have the same subnets: their packets never meet, so everything that is remembered of an address behind a pod is
//! remembered with that pod.

use crate::layout::{ASKED, FlowKey, POD_IS_HOST, Pod, Realm, Reverse, Sender, TCP, UDP};
use crate::packet::Ports;
use crate::reason::DropReason;
use crate::verdict::{Addresses, flow_hash};

/// Port of the node's own name server (RFC 1035), at the gateway's address.
const NAMES: u16 = 53;
/// Lowest port from which an owner asks it for those behind it: below are those of services.
const FIRST_PORT: u32 = 1024;

/// The pod that the source of a packet is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its own address.
    pub owner: u32,
    /// Its realm.
    pub realm: Realm,
}

/// Tells a pod from all others of the node in a [`FlowKey`]: its address without what all have in common. Pod networks hold at
/// most a /8 (`cni/src/config.rs`).
#[inline(always)]
pub fn tag(owner: u32) -> [u8; 3] {
    let [_, a, b, c] = owner.to_be_bytes();
    [a, b, c]
}

/// Is this the pod behind the interface at which a packet entered, so that the subnet is its own?
#[inline(always)]
pub fn is_owner(entered: u32, pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| pod.ifindex == entered && pod.flags & POD_IS_HOST == 0)
}

/// May what comes from behind a pod be delivered to this receiver, of which `sender` says the realm? To the host goes only what its
/// owner asks for it ([`Asked`]).
#[inline(always)]
pub fn may_reach(realm: &Realm, receiver: &Pod, sender: Option<&Sender>) -> Result<(), DropReason> {
    if receiver.flags & POD_IS_HOST != 0 {
        return Err(DropReason::BehindToOutside);
    }
    match sender {
        Some(sender) if is_same(&sender.realm, realm) => Ok(()),
        _ => Err(DropReason::OtherRealm),
    }
}

/// May a packet that entered at `entered`, from a sender of the realm, go to the owner of the subnet that its destination is in?
/// `owner`: the pod at the owner's address, of which `sender` says the realm.
#[inline(always)]
pub fn leads_to<'a>(
    entered: u32,
    realm: &Realm,
    owner: Option<&'a Pod>,
    sender: Option<&Sender>,
) -> Result<&'a Pod, DropReason> {
    let Some(pod) = owner else {
        return Err(DropReason::NoPod);
    };
    if pod.ifindex == entered {
        return Err(DropReason::BackToOwner);
    }
    may_reach(realm, pod, sender).map(|()| pod)
}

#[inline(always)]
fn is_same(a: &Realm, b: &Realm) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2]
}

/// A question for the node's name server, from an address to which the host knows no way: asked from the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The addresses that it leaves with.
    pub addresses: Addresses,
    /// What brings the answer back.
    pub reverse: Reverse,
}

impl Asked {
    /// `None` if the packet is none. The port is of the flow's own making: two flows that have the same one take answers from each
    /// other, and ask again.
    #[inline(always)]
    pub fn of(key: &FlowKey, owner: u32, receiver: &Pod) -> Option<Asked> {
        let names = matches!(key.protocol, UDP | TCP) && key.dport == NAMES;
        if receiver.flags & POD_IS_HOST == 0 || !names {
            return None;
        }
        let ports = (1 << 16) - FIRST_PORT;
        let port = FIRST_PORT + ((flow_hash(key) as u64 * ports as u64) >> 32) as u32;
        Some(Asked {
            addresses: Addresses {
                src: owner,
                dst: key.dst,
                ports: Ports {
                    src: port as u16,
                    dst: key.dport,
                },
            },
            reverse: Reverse {
                vip: key.dst,
                client: key.src,
                vip_port: key.sport,
                direct: ASKED,
            },
        })
    }

    /// The addresses of an answer, on its way to who asked.
    #[inline(always)]
    pub fn answer(key: &FlowKey, reverse: &Reverse) -> Addresses {
        Addresses {
            src: key.src,
            dst: reverse.client,
            ports: Ports {
                src: key.sport,
                dst: reverse.vip_port,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: u32 = 0x0a55_0002;
    const DEVICE: u32 = 0x0a2d_0007;
    const GATEWAY: u32 = 0x0a55_0001;
    const REALM: Realm = [1, 2, 3];

    fn pod(ifindex: u32, flags: u16) -> Pod {
        Pod {
            ifindex,
            flags,
            ..Pod::default()
        }
    }

    fn of(realm: Realm) -> Sender {
        Sender {
            realm,
            ..Sender::default()
        }
    }

    #[test]
    fn only_the_pod_behind_the_interface_owns() {
        assert!(is_owner(7, Some(&pod(7, 0))));
        for other in [None, Some(&pod(8, 0)), Some(&pod(7, POD_IS_HOST))] {
            assert!(!is_owner(7, other));
        }
    }

    #[test]
    fn realms_do_not_meet_in_either_direction() {
        let receiver = pod(7, 0);
        assert_eq!(may_reach(&REALM, &receiver, Some(&of(REALM))), Ok(()));
        assert_eq!(
            leads_to(3, &REALM, Some(&receiver), Some(&of(REALM))),
            Ok(&receiver)
        );
        // Of each word one bit; of nobody, of whom nothing is known.
        for other in [
            Some(of([0, 2, 3])),
            Some(of([1, 3, 3])),
            Some(of([1, 2, 2])),
            Some(of([0; 3])),
            None,
        ] {
            let why = DropReason::OtherRealm;
            assert_eq!(may_reach(&REALM, &receiver, other.as_ref()), Err(why));
            assert_eq!(leads_to(3, &REALM, Some(&receiver), other.as_ref()), Err(why));
        }
    }

    #[test]
    fn the_host_is_no_pod_of_any_realm() {
        let host = pod(7, POD_IS_HOST);
        assert_eq!(
            may_reach(&REALM, &host, Some(&of(REALM))),
            Err(DropReason::BehindToOutside)
        );
    }

    #[test]
    fn nothing_comes_back_to_its_sender_and_nothing_goes_to_who_is_gone() {
        let same = of(REALM);
        assert_eq!(
            leads_to(7, &REALM, Some(&pod(7, 0)), Some(&same)),
            Err(DropReason::BackToOwner)
        );
        assert_eq!(leads_to(7, &REALM, None, Some(&same)), Err(DropReason::NoPod));
    }

    fn key(protocol: u8, sport: u16, dport: u16) -> FlowKey {
        FlowKey {
            src: DEVICE,
            dst: GATEWAY,
            sport,
            dport,
            protocol,
            behind: [0; 3],
        }
    }

    #[test]
    fn of_the_host_only_names_are_asked() {
        let host = pod(2, POD_IS_HOST);
        for protocol in [UDP, TCP] {
            assert!(Asked::of(&key(protocol, 4000, 53), OWNER, &host).is_some());
            assert_eq!(Asked::of(&key(protocol, 4000, 54), OWNER, &host), None);
        }
        assert_eq!(Asked::of(&key(crate::layout::SCTP, 4000, 53), OWNER, &host), None);
        assert_eq!(Asked::of(&key(UDP, 4000, 53), OWNER, &pod(2, 0)), None);
    }

    proptest! {
        #[test]
        fn an_answer_finds_who_asked(sport: u16) {
            let asked = Asked::of(&key(UDP, sport, 53), OWNER, &pod(2, POD_IS_HOST)).unwrap();
            prop_assert_eq!((asked.addresses.src, asked.addresses.dst), (OWNER, GATEWAY));
            prop_assert!(u32::from(asked.addresses.ports.src) >= FIRST_PORT);
            let back = asked.addresses.reply_key(UDP);
            prop_assert_eq!((back.src, back.dst), (GATEWAY, OWNER));
            let home = Asked::answer(&back, &asked.reverse);
            prop_assert_eq!((home.src, home.dst), (GATEWAY, DEVICE));
            prop_assert_eq!(home.ports, Ports { src: 53, dst: sport });
        }

        #[test]
        fn pods_of_a_node_have_tags_of_their_own(a in 0u32..1 << 24, b in 0u32..1 << 24) {
            let net = 0x0a00_0000;
            prop_assert_eq!(tag(net | a) == tag(net | b), a == b);
        }
    }
}
