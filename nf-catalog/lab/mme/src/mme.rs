//! The element: what every procedure needs.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_lab_diameter::{Message as Diameter, Node, Peer, Service};
use gantry_lab_gtp::{Message, Plmn};
use gantry_lab_radio::{Down, Up};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::cause::{Cause, Causes};
use crate::devices::{Device, Devices, Enb, Held};
use crate::s6a::Home;
use crate::s11::S11;

/// How long a device may think (T3460 and T3450 of TS 24.301, table 10.2.2).
const PATIENCE: Duration = Duration::from_secs(6);

/// What does not change.
pub struct Settings {
    /// Own address.
    pub address: Ipv4Addr,
    /// The network.
    pub plmn: Plmn,
    /// Tracking area code.
    pub area: u16,
    /// Access point name.
    pub apn: String,
    /// `host:port`.
    pub sgw: String,
    /// A host.
    pub pgw: String,
    /// Realm of the HSS.
    pub hss_realm: String,
    /// The HSS, if it has to be that one.
    pub hss: Option<String>,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Devices with a session.
    pub attached: AtomicU64,
    /// Devices that wanted to be attached.
    pub attaches: AtomicU64,
    /// Why some were not.
    pub attach_failures: Causes,
    /// Why something else was not done.
    pub other_failures: Causes,
    /// AIR.
    pub authentication_requests: AtomicU64,
    /// ULR.
    pub location_requests: AtomicU64,
    /// Downlink Data Notifications.
    pub notifications: AtomicU64,
    /// Devices that were called.
    pub pages: AtomicU64,
    /// Dedicated bearers that were refused.
    pub bearers_refused: AtomicU64,
    /// Connected eNBs.
    pub enbs: AtomicU64,
}

/// The answers to an HSS, which is told that nothing is known of what it asks.
pub struct Nothing(pub gantry_lab_diameter::Identity);

impl Service for Nothing {
    async fn answer(&self, request: Diameter, _from: &Peer) -> Diameter {
        request.unknown(&self.0)
    }
}

/// See the module.
pub struct Mme {
    /// What does not change.
    pub settings: Settings,
    /// S6a.
    pub node: Node<Nothing>,
    /// S11.
    pub s11: S11,
    /// Its socket, for answers.
    pub socket: Arc<UdpSocket>,
    /// Whom it knows.
    pub devices: Devices,
    /// What happened.
    pub counts: Counts,
    /// Differs from start to start: names of Diameter sessions begin with it.
    pub start: u64,
    /// How many of them there were.
    pub sessions: AtomicU64,
}

/// A device while something is done with it.
pub struct Talk {
    /// Who.
    pub imsi: String,
    /// Through which eNB.
    pub enb: Enb,
    /// What it says.
    pub heard: mpsc::Receiver<Up>,
}

impl Talk {
    /// Tells it something.
    pub async fn say(&self, message: Down) {
        self.enb.say(message).await;
    }

    /// What it says next.
    pub async fn hear(&mut self) -> Result<Up, Cause> {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        heard.ok().flatten().ok_or(Cause::DeviceSilent)
    }
}

impl Mme {
    /// Asks the HSS.
    pub async fn ask_home(&self, count: &AtomicU64, request: Diameter) -> Result<Diameter, Cause> {
        count.fetch_add(1, Ordering::Relaxed);
        self.node.request(request).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "S6a");
            Cause::HssUnreachable
        })
    }

    /// Whom to ask about subscribers.
    pub fn home(&self) -> Home<'_> {
        Home {
            identity: self.node.identity(),
            realm: &self.settings.hss_realm,
            host: self.settings.hss.as_deref(),
            plmn: self.settings.plmn,
        }
    }

    /// A name of a Diameter session (RFC 6733, 8.8).
    pub fn diameter_session(&self) -> String {
        let nth = self.sessions.fetch_add(1, Ordering::Relaxed);
        format!("{};{};{nth}", self.node.identity().host, self.start)
    }

    /// Asks an SGW.
    pub async fn ask_gateway(&self, to: SocketAddrV4, request: Message) -> Result<Message, Cause> {
        self.s11.ask(to, request).await.map_err(|error| match error {
            crate::s11::AskError::Silent => Cause::GatewaySilent,
            crate::s11::AskError::Congested => Cause::Congestion,
        })
    }

    /// From now on it has this session, or none.
    pub fn hold(&self, device: &mut Device, held: Option<Held>) {
        match (device.held.is_some(), held.is_some()) {
            (false, true) => self.counts.attached.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.counts.attached.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        device.held = held;
    }
}
