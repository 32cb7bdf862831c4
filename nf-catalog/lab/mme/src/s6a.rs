//! S6a in Diameter (TS 29.272, 5.2.1.1 and 5.2.3.1): what an HSS is asked, and what it says. No I/O.

use gantry_lab_aka::Auts;
use gantry_lab_diameter::codes::{application, avp, command, result};
use gantry_lab_diameter::{Avp, AvpCode, Avps, Identity, Message, VENDOR_3GPP};
use gantry_lab_gtp::Plmn;

use crate::cause::Cause;

const RAT_TYPE: AvpCode = AvpCode::of_3gpp(1032);
const RAT_E_UTRAN: u32 = 1004;
const ULR_FLAGS: AvpCode = AvpCode::of_3gpp(1405);
/// S6a and not S6d (bit 1), and the first attach (bit 5).
const INITIAL_ATTACH: u32 = 0x22;
/// Auth-Session-State: nothing is remembered of a session.
const NO_STATE: u32 = 1;

/// A challenge and what it must come to.
pub struct Challenge {
    /// RAND.
    pub rand: [u8; 16],
    /// AUTN.
    pub autn: [u8; 16],
    /// XRES.
    pub xres: Vec<u8>,
}

/// Whom to ask, and who asks.
pub struct Home<'a> {
    /// This node.
    pub identity: &'a Identity,
    /// The realm of the HSS.
    pub realm: &'a str,
    /// The HSS, if it has to be that one.
    pub host: Option<&'a str>,
    /// The network that is visited.
    pub plmn: Plmn,
}

impl Home<'_> {
    /// Authentication-Information-Request for one vector; after a failed synchronisation with the challenge and the card's word.
    pub fn authentication(&self, session: &str, imsi: &str, resync: Option<([u8; 16], Auts)>) -> Message {
        let mut asked = vec![Avp::number(avp::NUMBER_OF_REQUESTED_VECTORS, 1)];
        if let Some((rand, auts)) = resync {
            let both = [&rand[..], &auts].concat();
            asked.push(Avp::octets(avp::RESYNCHRONIZATION_INFO, both));
        }
        let more = vec![
            Avp::group(avp::REQUESTED_EUTRAN_AUTHENTICATION_INFO, &asked),
            Avp::octets(avp::VISITED_PLMN_ID, self.plmn.0),
        ];
        self.request(command::AUTHENTICATION_INFORMATION, session, imsi, more)
    }

    /// Update-Location-Request of an attach.
    pub fn location(&self, session: &str, imsi: &str) -> Message {
        let more = vec![
            Avp::number(RAT_TYPE, RAT_E_UTRAN),
            Avp::number(ULR_FLAGS, INITIAL_ATTACH),
            Avp::octets(avp::VISITED_PLMN_ID, self.plmn.0),
        ];
        self.request(command::UPDATE_LOCATION, session, imsi, more)
    }

    fn request(&self, command: u32, session: &str, imsi: &str, more: Vec<Avp>) -> Message {
        let vendor = [
            Avp::number(avp::VENDOR_ID, VENDOR_3GPP),
            Avp::number(avp::AUTH_APPLICATION_ID, application::S6A),
        ];
        let mut avps = vec![
            Avp::text(avp::SESSION_ID, session),
            Avp::group(avp::VENDOR_SPECIFIC_APPLICATION_ID, &vendor),
            Avp::number(avp::AUTH_SESSION_STATE, NO_STATE),
        ];
        avps.extend(self.identity.origin());
        avps.extend(self.host.map(|host| Avp::text(avp::DESTINATION_HOST, host)));
        avps.push(Avp::text(avp::DESTINATION_REALM, self.realm));
        avps.push(Avp::text(avp::USER_NAME, imsi));
        avps.extend(more);
        Message::request(application::S6A, command, avps)
    }
}

/// The vector of an Authentication-Information-Answer.
pub fn challenge(answer: &Message) -> Result<Challenge, Cause> {
    done(answer)?;
    let read = || {
        let info = answer.avps.find(avp::AUTHENTICATION_INFO)?.as_group().ok()?;
        let vector = info.find(avp::E_UTRAN_VECTOR)?.as_group().ok()?;
        let octets = |code| vector.find(code).map(|avp| avp.data.clone());
        Some(Challenge {
            rand: octets(avp::RAND)?.try_into().ok()?,
            autn: octets(avp::AUTN)?.try_into().ok()?,
            xres: octets(avp::XRES)?,
        })
    };
    read().ok_or(Cause::HssRefused)
}

/// Whether an HSS has done what was asked.
pub fn done(answer: &Message) -> Result<(), Cause> {
    match answer.result() {
        Some(result::SUCCESS) => Ok(()),
        Some(result::USER_UNKNOWN) => Err(Cause::UnknownSubscriber),
        _ => Err(Cause::HssRefused),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn identity() -> Identity {
        Identity {
            host: "mme.epc.lab".to_owned(),
            realm: "epc.lab".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            product: "test",
            applications: vec![],
        }
    }

    #[test]
    fn a_vector_is_asked_for_and_read() {
        let identity = identity();
        let home = Home {
            identity: &identity,
            realm: "ims.lab",
            host: None,
            plmn: Plmn([0, 0xf1, 0x10]),
        };
        let request = home.authentication("s;1", "001010000000001", Some(([1; 16], [2; 14])));
        assert_eq!(request.text(avp::DESTINATION_REALM), "ims.lab");
        let asked = request
            .avps
            .find(avp::REQUESTED_EUTRAN_AUTHENTICATION_INFO)
            .unwrap();
        let resync = asked.as_group().unwrap();
        assert_eq!(resync.find(avp::RESYNCHRONIZATION_INFO).unwrap().data.len(), 30);
        let vector = [
            Avp::octets(avp::RAND, [3; 16]),
            Avp::octets(avp::AUTN, [4; 16]),
            Avp::octets(avp::XRES, [5; 8]),
        ];
        let vector = Avp::group(avp::E_UTRAN_VECTOR, &vector);
        let answer = request.answer(vec![
            Avp::number(avp::RESULT_CODE, 2001),
            Avp::group(avp::AUTHENTICATION_INFO, &[vector]),
        ]);
        let challenge = challenge(&answer).unwrap_or_else(|why| panic!("{why:?}"));
        assert_eq!((challenge.rand, challenge.xres), ([3; 16], vec![5; 8]));
        let unknown = request.answer(vec![Avp::number(avp::RESULT_CODE, 5001)]);
        assert_eq!(done(&unknown), Err(Cause::UnknownSubscriber));
    }
}
