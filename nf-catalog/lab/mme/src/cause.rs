//! Why something was not done: one word for eNBs, and a label of the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The HSS does not know it.
    UnknownSubscriber,
    /// No HSS is connected, or it does not answer.
    HssUnreachable,
    /// The HSS says something else.
    HssRefused,
    /// The device says that the network is not authentic.
    NetworkNotAuthentic,
    /// The device does not know its key.
    WrongAnswer,
    /// The device, or its eNB, does not answer.
    DeviceSilent,
    /// SGW or PGW has no address.
    UnknownGateway,
    /// The SGW does not answer. So it is, too, if its PGW does not.
    GatewaySilent,
    /// The SGW says no.
    GatewayRefused,
    /// Too much is asked at once, or too many devices are there.
    Congestion,
    /// It is not attached.
    NotAttached,
}

impl Cause {
    const ALL: [Self; 11] = [
        Self::UnknownSubscriber,
        Self::HssUnreachable,
        Self::HssRefused,
        Self::NetworkNotAuthentic,
        Self::WrongAnswer,
        Self::DeviceSilent,
        Self::UnknownGateway,
        Self::GatewaySilent,
        Self::GatewayRefused,
        Self::Congestion,
        Self::NotAttached,
    ];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownSubscriber => "unknown_subscriber",
            Self::HssUnreachable => "hss_unreachable",
            Self::HssRefused => "hss_refused",
            Self::NetworkNotAuthentic => "network_not_authentic",
            Self::WrongAnswer => "wrong_answer",
            Self::DeviceSilent => "device_silent",
            Self::UnknownGateway => "unknown_gateway",
            Self::GatewaySilent => "gateway_silent",
            Self::GatewayRefused => "gateway_refused",
            Self::Congestion => "congestion",
            Self::NotAttached => "not_attached",
        }
    }
}

/// A count for each cause.
#[derive(Debug, Default)]
pub struct Causes([AtomicU64; Cause::ALL.len()]);

impl Causes {
    /// One more.
    pub fn add(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Cause::ALL.iter().map(|cause| cause.word()).zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_place() {
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at);
        }
    }
}
