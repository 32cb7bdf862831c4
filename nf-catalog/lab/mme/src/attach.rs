//! Attach (TS 23.401, 5.3.2.1): who is it, may it, a session, a tunnel.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering;

use gantry_lab_gtp::s11::{self, NewSession};
use gantry_lab_gtp::{CONTROL_PORT, FTeid, Message, interface, kind};
use gantry_lab_radio::{Bytes, Down, Tunnel, Up};

use crate::cause::Cause;
use crate::devices::{Device, Held};
use crate::mme::{Mme, Talk};
use crate::s6a;

/// Quality class of a default bearer: not guaranteed, for anything (TS 23.203, table 6.1.7-A).
const QCI: u8 = 9;
/// Most that a device sends and receives; nobody in a lab enforces it.
const AMBR_KBIT_S: (u32, u32) = (1_000_000, 1_000_000);

impl Mme {
    /// Attaches a device, or tells it why not.
    pub async fn attach(&self, mut talk: Talk) {
        self.counts.attaches.fetch_add(1, Ordering::Relaxed);
        let Err(cause) = self.try_attach(&mut talk).await else {
            return;
        };
        self.counts.attach_failures.add(cause);
        let (imsi, word) = (talk.imsi.clone(), cause.word());
        tracing::debug!(imsi, cause = word, "not attached");
        talk.say(Down::Rejected {
            imsi,
            cause: word.to_owned(),
        })
        .await;
    }

    async fn try_attach(&self, talk: &mut Talk) -> Result<(), Cause> {
        let device = self.devices.enter(&talk.imsi).ok_or(Cause::Congestion)?;
        let mut device = device.lock().await;
        self.authenticate(talk).await?;
        let location = self.home().location(&self.diameter_session(), &talk.imsi);
        s6a::done(&self.ask_home(&self.counts.location_requests, location).await?)?;
        // It may have been attached already and know nothing of it. The new session does not hang on the end of the old one.
        self.drop_session(&mut device).await;
        let held = self.create_session(&device).await?;
        self.hold(&mut device, Some(held));
        device.enb = Some(talk.enb.clone());
        let done = self.connect(talk, &held).await;
        if done.is_err() {
            self.drop_session(&mut device).await;
            return done;
        }
        device.idle = false;
        let imsi = talk.imsi.clone();
        talk.say(Down::Accepted { imsi }).await;
        Ok(())
    }

    /// Challenge and answer; once more if the card has seen a later number (TS 24.301, 5.4.2).
    async fn authenticate(&self, talk: &mut Talk) -> Result<(), Cause> {
        let mut resync = None;
        for last in [false, true] {
            let session = self.diameter_session();
            let request = self.home().authentication(&session, &talk.imsi, resync);
            let answer = self
                .ask_home(&self.counts.authentication_requests, request)
                .await?;
            let challenge = s6a::challenge(&answer)?;
            talk.say(Down::Challenge {
                imsi: talk.imsi.clone(),
                rand: Bytes(challenge.rand),
                autn: Bytes(challenge.autn),
            })
            .await;
            match talk.hear().await? {
                Up::Response { res, .. } if res.0[..] == challenge.xres => return Ok(()),
                Up::Response { .. } => return Err(Cause::WrongAnswer),
                Up::Failure { auts: Some(auts), .. } if !last => resync = Some((challenge.rand, auts.0)),
                Up::Failure { .. } => return Err(Cause::NetworkNotAuthentic),
                _ => return Err(Cause::DeviceSilent),
            }
        }
        Err(Cause::NetworkNotAuthentic)
    }

    async fn create_session(&self, device: &Device) -> Result<Held, Cause> {
        let settings = &self.settings;
        let sgw = look_up(&settings.sgw).await?;
        let pgw = look_up(&format!("{}:{CONTROL_PORT}", settings.pgw)).await?;
        let new = NewSession {
            imsi: &device.imsi,
            plmn: settings.plmn,
            area: settings.area,
            apn: &settings.apn,
            mme: own_end(settings.address, device.teid),
            pgw: *pgw.ip(),
            qci: QCI,
            ambr_kbit_s: AMBR_KBIT_S,
        };
        let answer = self.ask_gateway(sgw, new.request()).await?;
        let session = s11::created(&answer).map_err(|error| refused(&error))?;
        Ok(Held { session, sgw })
    }

    /// The device learns its address and the SGW's end, the SGW the eNB's.
    async fn connect(&self, talk: &mut Talk, held: &Held) -> Result<(), Cause> {
        let user = held.session.user;
        talk.say(Down::Setup {
            imsi: talk.imsi.clone(),
            address: held.session.address,
            tunnel: Tunnel {
                address: user.address,
                teid: user.teid,
            },
        })
        .await;
        match talk.hear().await? {
            Up::Ready { tunnel, .. } => self.modify(held, tunnel).await,
            _ => Err(Cause::DeviceSilent),
        }
    }

    /// The SGW learns the eNB's end. One that does not know the session has lost it: the device is not attached.
    pub async fn modify(&self, held: &Held, tunnel: Tunnel) -> Result<(), Cause> {
        let enb = FTeid {
            interface: interface::S1_U_ENB,
            teid: tunnel.teid,
            address: tunnel.address,
        };
        let answer = self
            .ask_gateway(held.sgw, s11::modify(&held.session, enb))
            .await?;
        refusal(&answer, kind::MODIFY_BEARER_RESPONSE)
    }

    /// Ends the session, if there is one. Whatever comes of it, it is forgotten here. One that the SGW does not know has ended already
    /// (TS 29.274, 7.2.10).
    pub async fn end_session(&self, device: &mut Device) -> Result<(), Cause> {
        let Some(held) = device.held else {
            return Ok(());
        };
        self.hold(device, None);
        let answer = self.ask_gateway(held.sgw, s11::delete(&held.session)).await?;
        match refusal(&answer, kind::DELETE_SESSION_RESPONSE) {
            Err(Cause::NotAttached) => Ok(()),
            other => other,
        }
    }

    /// The same where nobody waits for what comes of it: that is only counted.
    pub async fn drop_session(&self, device: &mut Device) {
        if let Err(cause) = self.end_session(device).await {
            self.counts.other_failures.add(cause);
        }
    }
}

fn own_end(address: Ipv4Addr, teid: u32) -> FTeid {
    FTeid {
        interface: interface::S11_MME,
        teid,
        address,
    }
}

/// Why the SGW has not done what it was asked about a session.
pub fn refusal(answer: &Message, kind: u8) -> Result<(), Cause> {
    match s11::accepted(answer, kind) {
        Err(s11::Refused::Cause(s11::cause::CONTEXT_NOT_FOUND)) => Err(Cause::NotAttached),
        other => other.map_err(|error| refused(&error)),
    }
}

/// Logs what the metrics do not tell.
fn refused(error: &s11::Refused) -> Cause {
    tracing::warn!(error = error as &dyn std::error::Error, "S11");
    Cause::GatewayRefused
}

async fn look_up(name: &str) -> Result<SocketAddrV4, Cause> {
    gantry_lab_daemon::resolve(name).await.map_err(|error| {
        tracing::warn!(name, error = format!("{error:#}"), "no such gateway");
        Cause::UnknownGateway
    })
}
