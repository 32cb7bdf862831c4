//! What an MME and an SGW say to each other (TS 29.274, 7.2): one default bearer a session, IPv4 alone.

use std::net::Ipv4Addr;

use crate::element::{Element, Elements, MalformedElement, kind as element};
use crate::value::{self, FTeid, MalformedValue, Plmn, interface};
use crate::{Message, kind};

/// EPS bearer identity of every default bearer: the first that is not reserved (TS 24.007, 11.2.3.1.5).
pub const EBI: u8 = 5;

/// Cause values (TS 29.274, table 8.4-1).
pub mod cause {
    /// Done.
    pub const REQUEST_ACCEPTED: u8 = 16;
    /// Nothing is known of what the TEID names.
    pub const CONTEXT_NOT_FOUND: u8 = 64;
    /// It will not be done.
    pub const NO_RESOURCES_AVAILABLE: u8 = 73;
    /// The device is not there.
    pub const UNABLE_TO_PAGE_UE: u8 = 90;
}

const RAT_E_UTRAN: u8 = 6;
/// The network has checked that the subscriber may use the APN (8.58).
const SUBSCRIPTION_VERIFIED: u8 = 0;
const NO_RESTRICTION: u8 = 0;

/// A session that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// Whose.
    pub imsi: &'a str,
    /// The serving network.
    pub plmn: Plmn,
    /// Its tracking area.
    pub area: u16,
    /// Where to.
    pub apn: &'a str,
    /// This end.
    pub mme: FTeid,
    /// Through which PGW.
    pub pgw: Ipv4Addr,
    /// Quality class (TS 23.203, table 6.1.7-A).
    pub qci: u8,
    /// Most that the device sends, and receives, in kbit/s.
    pub ambr_kbit_s: (u32, u32),
}

/// A session that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The SGW's name for it.
    pub control: u32,
    /// Where the device's packets go.
    pub user: FTeid,
    /// The device's address.
    pub address: Ipv4Addr,
}

/// Why a request was not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The other says so.
    #[error("the request was refused with cause {0}")]
    Cause(u8),
    /// It says something else than an answer to this request.
    #[error("message {0} is no answer to this request")]
    Kind(u8),
    /// What an answer has to say is missing.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// A value.
    #[error("the answer cannot be read")]
    Value(#[source] MalformedValue),
    /// A group.
    #[error("the answer cannot be read")]
    Element(#[source] MalformedElement),
}

impl NewSession<'_> {
    /// Create Session Request (7.2.1).
    pub fn request(&self) -> Message {
        let pgw = FTeid {
            interface: interface::S5_PGW,
            teid: 0,
            address: self.pgw,
        };
        let (up, down) = self.ambr_kbit_s;
        let bearer = [Element::new(element::EBI, [EBI]), value::bearer_qos(self.qci, 8)];
        let elements = vec![
            value::imsi(self.imsi),
            value::location(self.plmn, self.area, 1),
            Element::new(element::SERVING_NETWORK, self.plmn.0),
            Element::new(element::RAT_TYPE, [RAT_E_UTRAN]),
            self.mme.element(),
            pgw.element().instance(1),
            value::apn(self.apn),
            Element::new(element::SELECTION_MODE, [SUBSCRIPTION_VERIFIED]),
            Element::new(element::PDN_TYPE, [value::PDN_IPV4]),
            value::pdn_address(Ipv4Addr::UNSPECIFIED),
            Element::new(element::APN_RESTRICTION, [NO_RESTRICTION]),
            value::ambr(up, down),
            Element::group(element::BEARER_CONTEXT, &bearer),
        ];
        Message::new(kind::CREATE_SESSION_REQUEST, 0, elements)
    }
}

/// The session that a Create Session Response (7.2.2) tells.
pub fn created(answer: &Message) -> Result<Session, Refused> {
    accepted(answer, kind::CREATE_SESSION_RESPONSE)?;
    let all = answer.elements.as_slice();
    let found = |list: &[Element], kind, name| list.find(kind, 0).cloned().ok_or(Refused::Missing(name));
    let control = found(all, element::F_TEID, "F-TEID of the SGW")?;
    let address = found(all, element::PAA, "address")?;
    let bearer = found(all, element::BEARER_CONTEXT, "bearer")?;
    let bearer = bearer.as_group().map_err(Refused::Element)?;
    let user = found(&bearer, element::F_TEID, "S1-U F-TEID")?;
    Ok(Session {
        control: FTeid::read(&control).map_err(Refused::Value)?.teid,
        user: FTeid::read(&user).map_err(Refused::Value)?,
        address: value::read_pdn_address(&address).map_err(Refused::Value)?,
    })
}

/// Whether an answer of this kind says that it was done (8.4).
pub fn accepted(answer: &Message, kind: u8) -> Result<(), Refused> {
    if answer.kind != kind {
        return Err(Refused::Kind(answer.kind));
    }
    let cause = answer.elements.find(element::CAUSE, 0);
    match cause.and_then(|cause| cause.value.first()) {
        Some(&cause::REQUEST_ACCEPTED) => Ok(()),
        Some(other) => Err(Refused::Cause(*other)),
        None => Err(Refused::Missing("cause")),
    }
}

/// Modify Bearer Request (7.2.7): the eNB's end.
pub fn modify(session: &Session, enb: FTeid) -> Message {
    let bearer = [Element::new(element::EBI, [EBI]), enb.element()];
    let bearer = Element::group(element::BEARER_CONTEXT, &bearer);
    Message::new(kind::MODIFY_BEARER_REQUEST, session.control, vec![bearer])
}

/// Release Access Bearers Request (7.2.21).
pub fn release(session: &Session) -> Message {
    Message::new(kind::RELEASE_ACCESS_BEARERS_REQUEST, session.control, vec![])
}

/// Delete Session Request (7.2.9.1).
pub fn delete(session: &Session) -> Message {
    let bearer = Element::new(element::EBI, [EBI]);
    Message::new(kind::DELETE_SESSION_REQUEST, session.control, vec![bearer])
}

/// Answer to a Downlink Data Notification (7.2.11.2), or to a Create Bearer Request (7.2.4), with a cause: `control` is the SGW's name
/// of the session, 0 if there is none.
pub fn answer(request: &Message, control: u32, cause: u8) -> Option<Message> {
    let kind = match request.kind {
        kind::DOWNLINK_DATA_NOTIFICATION => kind::DOWNLINK_DATA_NOTIFICATION_ACKNOWLEDGE,
        kind::CREATE_BEARER_REQUEST => kind::CREATE_BEARER_RESPONSE,
        _ => return None,
    };
    let cause = Element::new(element::CAUSE, [cause, 0]);
    Some(Message {
        sequence: request.sequence,
        ..Message::new(kind, control, vec![cause])
    })
}

/// Answer to an Echo Request (7.1.2), with the count of this node's restarts.
pub fn echo_response(request: &Message, restarts: u8) -> Message {
    Message {
        kind: kind::ECHO_RESPONSE,
        teid: None,
        sequence: request.sequence,
        elements: vec![Element::new(element::RECOVERY, [restarts])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(interface: u8, teid: u32, last: u8) -> FTeid {
        FTeid {
            interface,
            teid,
            address: Ipv4Addr::new(10, 0, 0, last),
        }
    }

    fn response(cause: u8) -> Message {
        let bearer = [
            Element::new(element::EBI, [EBI]),
            end(interface::S1_U_SGW, 8, 2).element(),
        ];
        let elements = vec![
            Element::new(element::CAUSE, [cause, 0]),
            end(interface::S11_SGW, 7, 2).element(),
            value::pdn_address(Ipv4Addr::new(10, 45, 0, 2)),
            Element::group(element::BEARER_CONTEXT, &bearer),
        ];
        Message::new(kind::CREATE_SESSION_RESPONSE, 1, elements)
    }

    #[test]
    fn a_session_is_asked_for() {
        let new = NewSession {
            imsi: "001010000000001",
            plmn: Plmn([0x00, 0xf1, 0x10]),
            area: 1,
            apn: "internet",
            mme: end(interface::S11_MME, 1, 1),
            pgw: Ipv4Addr::new(10, 0, 0, 3),
            qci: 9,
            ambr_kbit_s: (1000, 2000),
        };
        let mut request = new.request();
        request.sequence = 1;
        let expected = "4820009f 00000000 00000100 01000800 00010100000000f1 56000d00 1800f110000100f11000000001 \
             53000300 00f110 52000100 06 57000900 8a000000010a000001 57000901 87000000000a000003 47000900 08696e7465726e6574 \
             80000100 00 63000100 01 4f000500 0100000000 7f000100 00 48000800 000003e8000007d0 \
             5d001f00 49000100 05 50001600 20090000000000000000000000000000000000000000";
        assert_eq!(hex::encode(request.encode()), expected.replace(' ', ""));
    }

    #[test]
    fn a_session_is_told() {
        let expected = Session {
            control: 7,
            user: end(interface::S1_U_SGW, 8, 2),
            address: Ipv4Addr::new(10, 45, 0, 2),
        };
        assert_eq!(created(&response(cause::REQUEST_ACCEPTED)), Ok(expected));
        assert_eq!(created(&response(73)), Err(Refused::Cause(73)));
        let mut without = response(cause::REQUEST_ACCEPTED);
        without.elements.pop();
        assert_eq!(created(&without), Err(Refused::Missing("bearer")));
        let other = Message::new(kind::MODIFY_BEARER_RESPONSE, 1, vec![]);
        assert_eq!(created(&other), Err(Refused::Kind(35)));
    }

    #[test]
    fn the_other_requests_name_the_session_as_the_sgw_does() {
        let session = created(&response(cause::REQUEST_ACCEPTED)).unwrap();
        let hex = |message: Message| hex::encode(message.encode());
        assert_eq!(
            hex(modify(&session, end(interface::S1_U_ENB, 9, 4))),
            "4822001e00000007000000005d0012004900010005570009008000000009\
             0a000004"
        );
        assert_eq!(hex(release(&session)), "48aa00080000000700000000");
        assert_eq!(hex(delete(&session)), "4824000d00000007000000004900010005");
    }

    #[test]
    fn what_the_sgw_asks_is_answered_under_its_number() {
        let mut request = Message::new(kind::DOWNLINK_DATA_NOTIFICATION, 1, vec![]);
        request.sequence = 77;
        let answer = answer(&request, 7, cause::REQUEST_ACCEPTED).unwrap();
        assert_eq!(
            hex::encode(answer.encode()),
            "48b1000e0000000700004d00020002001000"
        );
        request.kind = kind::DELETE_SESSION_RESPONSE;
        assert_eq!(super::answer(&request, 7, 16), None);
        request.teid = None;
        assert_eq!(
            hex::encode(echo_response(&request, 3).encode()),
            "4002000900004d000300010003"
        );
    }
}
