//! Why packets are dropped and which way the others go. Discriminant = index in the counter map =
//! position in `ALL`; [`DropReason::label`] is the metric's label.

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $index:literal => $label:literal,)* }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant = $index,)* }

        impl $name {
            /// Every variant, in index order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Name in metrics.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }
    };
}

counted! {
    /// Why a packet was dropped (map DROPS).
    DropReason {
        /// Not a whole IPv4 header, or not a whole transport header.
        Malformed = 0 => "malformed",
        /// To a service network address where no service is (on this port and protocol).
        NoService = 1 => "no_service",
        /// New flow to a service without a backend that takes new flows.
        NoBackend = 2 => "no_backend",
        /// To an address in the pod network that no pod has.
        NoPod = 3 => "no_pod",
        /// Later fragment to a service address whose first fragment was never seen.
        FragmentWithoutFirst = 4 => "fragment_without_first",
        /// A header could not be written.
        RewriteFailed = 5 => "rewrite_failed",
        /// SCTP to a backend on another port: its checksum cannot be kept right in place.
        SctpPortChange = 6 => "sctp_port_change",
        /// From a pod, with a source address that is neither its own nor in a subnet behind it: nobody's, or somebody else's.
        ForeignSource = 7 => "foreign_source",
        /// The node's networks are not known yet.
        NotConfigured = 8 => "not_configured",
        /// Not IPv4, or with a VLAN tag: the kernel takes tags off behind the program, and delivers what it has not seen.
        NotIpv4 = 9 => "not_ipv4",
        /// A fragment beyond its sender's share of those that may wait for the rest of their datagram.
        FragmentBeyondShare = 10 => "fragment_beyond_share",
        /// ICMP error of a pod about a packet that was sent neither to it nor to an address behind it, or a redirect.
        ForgedError = 11 => "forged_error",
        /// From an address behind a pod, to a pod of another namespace: only those of its own know where it is.
        OtherRealm = 12 => "other_realm",
        /// From an address behind a pod, to beyond the node, or to the host other than for names: nobody there knows the way back. The
        /// pod that it is behind can masquerade what is for there.
        BehindToOutside = 13 => "behind_to_outside",
        /// From a pod, to an address behind that pod itself, where it would come back to again and again.
        BackToOwner = 14 => "back_to_owner",
    }
}

const _: () = assert!(DropReason::ALL.len() <= crate::MAX_REASONS as usize);

counted! {
    /// Which way packets that were not dropped went (map PATHS).
    Path {
        /// Straight into a local pod.
        Pod = 0 => "pod",
        /// To the host.
        Host = 1 => "host",
        /// To the host's own IP stack: outside.
        Stack = 2 => "stack",
        /// From client to service; counted beside one of the above.
        Service = 3 => "service",
        /// Reply of a service; counted beside one of the above.
        Reply = 4 => "reply",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_position_and_labels_are_unique() {
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
        }
        for (i, p) in Path::ALL.iter().enumerate() {
            assert_eq!(*p as usize, i);
        }
        let labels: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }
}
