//! S6a as far as a lab's MME asks: vectors, and where a user is attached (TS 29.272, 5.2).

use gantry_lab_aka::{Auts, Vector};
use gantry_lab_diameter::codes::{avp, command, result};
use gantry_lab_diameter::{Avp, AvpCode, Avps, Message};

use crate::hss::Hss;
use crate::identity::Nth;
use crate::registry::Domain;
use crate::reply::{Refusal, Reply, required};

/// Most vectors in an answer (TS 29.272, 7.3.11 has the same bound).
const MOST_VECTORS: u32 = 5;
/// ULA-Flags: the MME keeps what the subscription says (bit 0, separation indication).
const ULA_FLAGS: AvpCode = AvpCode::of_3gpp(1406);
const SUBSCRIBER_STATUS: AvpCode = AvpCode::of_3gpp(1424);
const SERVICE_GRANTED: u32 = 0;

/// The answer to a request of S6a; `None` if the command is unknown.
pub fn answer(hss: &Hss, request: &Message) -> Option<Result<Reply, Refusal>> {
    Some(match request.header.command {
        command::AUTHENTICATION_INFORMATION => authentication_information(hss, request),
        command::UPDATE_LOCATION => update_location(hss, request),
        _ => return None,
    })
}

fn user(hss: &Hss, request: &Message) -> Result<Nth, Refusal> {
    let imsi = required(request, avp::USER_NAME, "User-Name")?;
    let nth = hss.users().by_private(imsi);
    nth.ok_or_else(|| Refusal::experimental(result::USER_UNKNOWN))
}

fn authentication_information(hss: &Hss, request: &Message) -> Result<Reply, Refusal> {
    let nth = user(hss, request)?;
    let plmn = request
        .avps
        .find(avp::VISITED_PLMN_ID)
        .and_then(|plmn| plmn.data.as_slice().try_into().ok());
    let plmn: [u8; 3] =
        plmn.ok_or_else(|| Refusal::new(result::MISSING_AVP, "Visited-PLMN-Id of three bytes is missing"))?;
    let asked = request.avps.find(avp::REQUESTED_EUTRAN_AUTHENTICATION_INFO);
    let asked = asked.and_then(|group| group.as_group().ok()).unwrap_or_default();
    let count = asked
        .number(avp::NUMBER_OF_REQUESTED_VECTORS)
        .unwrap_or(1)
        .clamp(1, MOST_VECTORS);
    let mut registry = hss.registry();
    if let Some((rand, auts)) = asked.find(avp::RESYNCHRONIZATION_INFO).and_then(rand_and_auts)
        && !registry.resync(hss.users(), nth, &rand, &auts)
    {
        return Err(Refusal::new(
            result::UNABLE_TO_COMPLY,
            "the AUTS is not of this user's card",
        ));
    }
    let (mut vectors, mut kept) = (Vec::new(), None);
    for _ in 0..count {
        let (vector, record) = registry.vector(hss.users(), nth, Domain::Eps, rand::random());
        vectors.push(e_utran(&vector, plmn));
        kept = record.or(kept);
    }
    let info = Avp::group(avp::AUTHENTICATION_INFO, &vectors);
    Ok(Reply::done(vec![info]).keeping(nth, kept))
}

fn rand_and_auts(avp: &Avp) -> Option<([u8; 16], Auts)> {
    let (rand, auts) = avp.data.split_first_chunk::<16>()?;
    Some((*rand, auts.try_into().ok()?))
}

fn e_utran(vector: &Vector, plmn: [u8; 3]) -> Avp {
    let parts = [
        Avp::octets(avp::RAND, vector.rand),
        Avp::octets(avp::XRES, vector.xres),
        Avp::octets(avp::AUTN, vector.autn),
        Avp::octets(avp::KASME, vector.kasme(plmn)),
    ];
    Avp::group(avp::E_UTRAN_VECTOR, &parts)
}

fn update_location(hss: &Hss, request: &Message) -> Result<Reply, Refusal> {
    let nth = user(hss, request)?;
    let mme = required(request, avp::ORIGIN_HOST, "Origin-Host")?;
    let record = hss.registry().attach(nth, mme);
    let status = Avp::number(SUBSCRIBER_STATUS, SERVICE_GRANTED);
    let avps = vec![
        Avp::number(ULA_FLAGS, 1),
        Avp::group(avp::SUBSCRIPTION_DATA, &[status]),
    ];
    Ok(Reply::done(avps).keeping(nth, record))
}
