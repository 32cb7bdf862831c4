//! S6a as far as a lab's MME asks: vectors, and where a user is attached (TS 29.272, 5.2).

use gantry_lab_aka::{Auts, Vector};
use gantry_lab_diameter::codes::{avp, command, result};
use gantry_lab_diameter::{Avp, AvpCode, Avps, Message};

use crate::hss::{Asked, Hss, Work};
use crate::identity::Nth;
use crate::registry::{Domain, State};
use crate::reply::{Refusal, Reply, required};

/// Most vectors in an answer (TS 29.272, 7.3.11 has the same bound).
const MOST_VECTORS: u32 = 5;
/// ULA-Flags: the MME keeps what the subscription says (bit 0, separation indication).
const ULA_FLAGS: AvpCode = AvpCode::of_3gpp(1406);
const SUBSCRIBER_STATUS: AvpCode = AvpCode::of_3gpp(1424);
const SERVICE_GRANTED: u32 = 0;

/// What a request of S6a comes to; `None` if the command is unknown.
pub fn work(command: u32) -> Option<Work> {
    Some(match command {
        command::AUTHENTICATION_INFORMATION => authentication_information,
        command::UPDATE_LOCATION => update_location,
        _ => return None,
    })
}

/// The user by IMSI.
pub fn user(hss: &Hss, request: &Message) -> Result<Nth, Refusal> {
    let imsi = required(request, avp::USER_NAME, "User-Name")?;
    let nth = hss.users().by_private(imsi);
    nth.ok_or_else(|| Refusal::experimental(result::USER_UNKNOWN))
}

fn authentication_information(asked: &Asked, state: &mut State) -> Result<Reply, Refusal> {
    let Asked { hss, request, nth } = *asked;
    let key = &hss.users().get(nth).key;
    let plmn = request
        .avps
        .find(avp::VISITED_PLMN_ID)
        .and_then(|plmn| plmn.data.as_slice().try_into().ok());
    let plmn: [u8; 3] =
        plmn.ok_or_else(|| Refusal::new(result::MISSING_AVP, "Visited-PLMN-Id of three bytes is missing"))?;
    let wanted = request.avps.find(avp::REQUESTED_EUTRAN_AUTHENTICATION_INFO);
    let wanted = wanted.and_then(|group| group.as_group().ok()).unwrap_or_default();
    let count = wanted
        .number(avp::NUMBER_OF_REQUESTED_VECTORS)
        .unwrap_or(1)
        .clamp(1, MOST_VECTORS);
    if let Some((rand, auts)) = wanted.find(avp::RESYNCHRONIZATION_INFO).and_then(rand_and_auts)
        && !state.resync(key, &rand, &auts)
    {
        return Err(Refusal::new(
            result::UNABLE_TO_COMPLY,
            "the AUTS is not of this user's card",
        ));
    }
    let vectors = (0..count).map(|_| e_utran(&state.vector(key, Domain::Eps, rand::random()), plmn));
    let info = Avp::group(avp::AUTHENTICATION_INFO, &vectors.collect::<Vec<_>>());
    Ok(Reply::done(vec![info]))
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

fn update_location(asked: &Asked, state: &mut State) -> Result<Reply, Refusal> {
    state.attach(required(asked.request, avp::ORIGIN_HOST, "Origin-Host")?);
    let status = Avp::number(SUBSCRIBER_STATUS, SERVICE_GRANTED);
    let avps = vec![
        Avp::number(ULA_FLAGS, 1),
        Avp::group(avp::SUBSCRIPTION_DATA, &[status]),
    ];
    Ok(Reply::done(avps))
}
