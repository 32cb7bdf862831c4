//! Where the report of `ue` has a fault: what of it must be exactly as much as was injected.

use crate::Fault;

impl Fault {
    /// Places of the report (RFC 6901) at which each injected one counts once; none for what devices must not notice.
    pub fn counted_in(self) -> &'static [&'static str] {
        match self {
            Self::Loss | Self::RtpOneWay => &["/audio/lost"],
            Self::Duplicate => &["/audio/doubled"],
            Self::Delay => &["/audio/late"],
            Self::Wrong200 => &["/wrong_contacts"],
            Self::DropBye => &["/retransmissions_by_method/BYE"],
            Self::RtpWrongPort => &["/audio/wrong_port", "/audio/lost"],
            Self::LeakKeys => &["/leaked_keys"],
            Self::WrongAutn => &["/not_authentic"],
            Self::ReorderFragments => &[],
        }
    }

    /// To each so many it is done where nothing else is ordered, so that there are calls with it.
    pub fn usual_every(self) -> u64 {
        match self {
            Self::Loss | Self::Duplicate | Self::Delay | Self::RtpWrongPort => 100,
            Self::Wrong200 | Self::WrongAutn => 3,
            // What is sent again arrives.
            Self::DropBye => 2,
            Self::RtpOneWay | Self::LeakKeys | Self::ReorderFragments => 1,
        }
    }
}
