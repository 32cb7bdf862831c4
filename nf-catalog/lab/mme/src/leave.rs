//! What ends or suspends a device's way through the network: detach (TS 23.401, 5.3.8), release (5.3.5), and what brings it back:
//! paging and service request (5.3.4).

use std::net::SocketAddrV4;
use std::sync::atomic::Ordering;

use gantry_lab_gtp::s11::{self, cause};
use gantry_lab_gtp::{Message, kind};
use gantry_lab_radio::{Down, Tunnel};

use crate::attach::refusal;
use crate::cause::Cause;
use crate::devices::{Device, Enb};
use crate::mme::{Mme, Talk};

impl Mme {
    /// It goes. Its session is forgotten even if the SGW is silent.
    pub async fn detach(&self, talk: Talk) {
        let Some(device) = self.devices.by_imsi(&talk.imsi) else {
            return self.reject(&talk, Cause::NotAttached).await;
        };
        let mut device = device.lock().await;
        if device.held.is_none() {
            return self.reject(&talk, Cause::NotAttached).await;
        }
        self.drop_session(&mut device).await;
        let imsi = talk.imsi.clone();
        talk.say(Down::Detached { imsi }).await;
    }

    /// It is idle.
    pub async fn release(&self, talk: Talk) {
        let released = match self.devices.by_imsi(&talk.imsi) {
            Some(device) => self.suspend(&mut *device.lock().await).await,
            None => Err(Cause::NotAttached),
        };
        match released {
            Ok(()) => {
                let imsi = talk.imsi.clone();
                talk.say(Down::Released { imsi }).await;
            }
            Err(cause) => self.reject(&talk, cause).await,
        }
    }

    /// It is no longer idle.
    pub async fn service(&self, talk: Talk, tunnel: Tunnel) {
        let served = async {
            let device = self.devices.by_imsi(&talk.imsi).ok_or(Cause::NotAttached)?;
            let mut device = device.lock().await;
            let held = device.held.ok_or(Cause::NotAttached)?;
            let modified = self.modify(&held, tunnel).await;
            self.unless_lost(&mut device, modified)?;
            device.enb = Some(talk.enb.clone());
            device.idle = false;
            Ok(())
        };
        match served.await {
            Ok(()) => {
                let imsi = talk.imsi.clone();
                talk.say(Down::Accepted { imsi }).await;
            }
            Err(cause) => self.reject(&talk, cause).await,
        }
    }

    /// An operator's order: its session ends, and it is told to go, and to come again or not.
    pub async fn order_out(&self, imsi: &str, reattach: bool) -> Result<(), Cause> {
        let device = self.devices.by_imsi(imsi).ok_or(Cause::NotAttached)?;
        let mut device = device.lock().await;
        if device.held.is_none() {
            return Err(Cause::NotAttached);
        }
        let ended = self.end_session(&mut device).await;
        if let Some(enb) = &device.enb {
            let imsi = imsi.to_owned();
            enb.say(Down::Detach { imsi, reattach }).await;
        }
        ended
    }

    /// An eNB has gone: its devices are idle, and nobody can call them.
    pub async fn enb_gone(&self, enb: &Enb) {
        for device in self.devices.all() {
            let mut device = device.lock().await;
            if device.enb.as_ref().is_some_and(|last| last.id == enb.id) {
                device.enb = None;
                if let Err(cause) = self.suspend(&mut device).await
                    && cause != Cause::NotAttached
                {
                    self.counts.other_failures.add(cause);
                }
            }
        }
    }

    /// What an SGW asks by itself.
    pub async fn asked(&self, from: SocketAddrV4, request: &Message) {
        let device = request.teid.and_then(|teid| self.devices.by_teid(teid));
        let (control, cause) = match device {
            Some(device) => self.for_device(&*device.lock().await, request).await,
            None => (0, cause::CONTEXT_NOT_FOUND),
        };
        if let Some(answer) = s11::answer(request, control, cause) {
            // One that is lost is asked for again.
            let _ = self.socket.send_to(&answer.encode(), from).await;
        }
    }

    async fn for_device(&self, device: &Device, request: &Message) -> (u32, u8) {
        let Some(held) = device.held else {
            return (0, cause::CONTEXT_NOT_FOUND);
        };
        let control = held.session.control;
        if request.kind != kind::DOWNLINK_DATA_NOTIFICATION {
            self.counts.bearers_refused.fetch_add(1, Ordering::Relaxed);
            return (control, cause::NO_RESOURCES_AVAILABLE);
        }
        self.counts.notifications.fetch_add(1, Ordering::Relaxed);
        let Some(enb) = &device.enb else {
            return (control, cause::UNABLE_TO_PAGE_UE);
        };
        self.counts.pages.fetch_add(1, Ordering::Relaxed);
        let imsi = device.imsi.clone();
        enb.say(Down::Page { imsi }).await;
        (control, cause::REQUEST_ACCEPTED)
    }

    async fn suspend(&self, device: &mut Device) -> Result<(), Cause> {
        let held = device.held.ok_or(Cause::NotAttached)?;
        let answer = self.ask_gateway(held.sgw, s11::release(&held.session)).await?;
        self.unless_lost(device, refusal(&answer, kind::RELEASE_ACCESS_BEARERS_RESPONSE))?;
        device.idle = true;
        Ok(())
    }

    /// A session that the SGW no longer knows is forgotten here, too: the device attaches anew.
    fn unless_lost(&self, device: &mut Device, done: Result<(), Cause>) -> Result<(), Cause> {
        if done == Err(Cause::NotAttached) {
            self.hold(device, None);
        }
        done
    }

    async fn reject(&self, talk: &Talk, cause: Cause) {
        self.counts.other_failures.add(cause);
        let (imsi, cause) = (talk.imsi.clone(), cause.word().to_owned());
        talk.say(Down::Rejected { imsi, cause }).await;
    }
}
