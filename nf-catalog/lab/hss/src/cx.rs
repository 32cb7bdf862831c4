//! Cx: whom an I-CSCF asks who serves a user, and an S-CSCF for vectors and profiles (TS 29.228, 6; TS 29.229).

use gantry_lab_diameter::codes::{application, avp, command, result};
use gantry_lab_diameter::{Avp, Avps, Message};

use crate::hss::{Asked, Hss, Work};
use crate::identity::Nth;
use crate::profile;
use crate::registry::{Assignment, Domain, State};
use crate::reply::{Refusal, Reply, common, required};

/// The only scheme (TS 29.228, 6.3).
const SCHEME: &str = "Digest-AKAv1-MD5";
/// User-Authorization-Type: the user wants to go.
const DE_REGISTRATION: u32 = 1;
/// Reason-Code of the end of a registration: another S-CSCF shall take over (TS 29.229, 6.3.17).
const NEW_SERVER_ASSIGNED: u32 = 1;

/// What a request of Cx comes to; `None` if the command is unknown.
pub fn work(command: u32) -> Option<Work> {
    Some(match command {
        command::USER_AUTHORIZATION => user_authorization,
        command::MULTIMEDIA_AUTH => multimedia_auth,
        command::SERVER_ASSIGNMENT => server_assignment,
        command::LOCATION_INFO => location_info,
        _ => return None,
    })
}

/// The user by both names, which must be of one.
pub fn user(hss: &Hss, request: &Message) -> Result<Nth, Refusal> {
    let unknown = || Refusal::experimental(result::USER_UNKNOWN);
    let private = request.avps.text(avp::USER_NAME);
    let public = request.avps.text(avp::PUBLIC_IDENTITY);
    let private = private
        .map(|name| hss.users().by_private(name).ok_or_else(unknown))
        .transpose()?;
    let public = public
        .map(|uri| hss.users().by_public(uri).ok_or_else(unknown))
        .transpose()?;
    match (private, public) {
        (Some(a), Some(b)) if a != b => Err(Refusal::experimental(result::IDENTITIES_DONT_MATCH)),
        (None, None) => Err(Refusal::new(
            result::MISSING_AVP,
            "neither User-Name nor Public-Identity",
        )),
        (a, b) => a.or(b).ok_or_else(unknown),
    }
}

fn server_name(uri: &str) -> Avp {
    Avp::text(avp::SERVER_NAME, uri)
}

fn user_authorization(asked: &Asked, state: &mut State) -> Result<Reply, Refusal> {
    if asked.request.avps.number(avp::USER_AUTHORIZATION_TYPE) == Some(DE_REGISTRATION) {
        return location_info(asked, state);
    }
    if let Some(server) = state.served() {
        let server = vec![server_name(server)];
        return Ok(Reply::experimental(result::SUBSEQUENT_REGISTRATION, server));
    }
    let server = asked.hss.registry().next_server();
    let server = server.ok_or_else(|| {
        Refusal::new(
            result::UNABLE_TO_COMPLY,
            "the HSS knows no S-CSCF: name one in sCscfs of its configuration",
        )
    })?;
    let server = vec![server_name(&server)];
    Ok(Reply::experimental(result::FIRST_REGISTRATION, server))
}

fn multimedia_auth(asked: &Asked, state: &mut State) -> Result<Reply, Refusal> {
    let Asked { hss, request, nth } = *asked;
    let key = &hss.users().get(nth).key;
    let server = required(request, avp::SERVER_NAME, "Server-Name")?;
    let item = request
        .avps
        .find(avp::SIP_AUTH_DATA_ITEM)
        .and_then(|item| item.as_group().ok());
    let item = item.unwrap_or_default();
    let scheme = item.text(avp::SIP_AUTHENTICATION_SCHEME).unwrap_or(SCHEME);
    if scheme != SCHEME && scheme != "Unknown" {
        return Err(Refusal::new(
            result::INVALID_AVP_VALUE,
            "only Digest-AKAv1-MD5 is known",
        ));
    }
    if let Some(told) = item.find(avp::SIP_AUTHORIZATION)
        && let Some((rand, auts)) = told.data.split_first_chunk::<16>()
        && let Ok(auts) = auts.try_into()
        && !state.resync(key, rand, auts)
    {
        return Err(Refusal::new(
            result::UNABLE_TO_COMPLY,
            "the AUTS is not of this user's card",
        ));
    }
    state.authenticating(server);
    let vector = state.vector(key, Domain::Ims, rand::random());
    let challenge = [vector.rand, vector.autn].concat();
    let item = [
        Avp::number(avp::SIP_ITEM_NUMBER, 1),
        Avp::text(avp::SIP_AUTHENTICATION_SCHEME, SCHEME),
        Avp::octets(avp::SIP_AUTHENTICATE, challenge),
        Avp::octets(avp::SIP_AUTHORIZATION, vector.xres),
        Avp::octets(avp::CONFIDENTIALITY_KEY, vector.ck),
        Avp::octets(avp::INTEGRITY_KEY, vector.ik),
    ];
    let avps = vec![
        Avp::text(avp::USER_NAME, hss.users().private(nth)),
        Avp::text(avp::PUBLIC_IDENTITY, request.text(avp::PUBLIC_IDENTITY)),
        Avp::number(avp::SIP_NUMBER_AUTH_ITEMS, 1),
        Avp::group(avp::SIP_AUTH_DATA_ITEM, &item),
    ];
    Ok(Reply::done(avps))
}

fn server_assignment(asked: &Asked, state: &mut State) -> Result<Reply, Refusal> {
    let Asked { hss, request, nth } = *asked;
    let server = required(request, avp::SERVER_NAME, "Server-Name")?;
    let kind = request
        .avps
        .number(avp::SERVER_ASSIGNMENT_TYPE)
        .and_then(Assignment::of);
    let kind =
        kind.ok_or_else(|| Refusal::new(result::INVALID_AVP_VALUE, "no such Server-Assignment-Type"))?;
    let host = required(request, avp::ORIGIN_HOST, "Origin-Host")?;
    if !state.assign(server, host, kind) {
        return Err(Refusal::new(
            result::UNABLE_TO_COMPLY,
            "another S-CSCF serves that user",
        ));
    }
    let private = hss.users().private(nth);
    let mut avps = vec![Avp::text(avp::USER_NAME, &private)];
    if matches!(
        kind,
        Assignment::None | Assignment::Registered | Assignment::Unregistered
    ) {
        let profile = profile::xml(&private, &hss.users().public(nth), hss.application_server());
        avps.push(Avp::text(avp::USER_DATA, profile));
    }
    Ok(Reply::done(avps))
}

fn location_info(_: &Asked, state: &mut State) -> Result<Reply, Refusal> {
    let server = state.location();
    let server = server.ok_or_else(|| Refusal::experimental(result::IDENTITY_NOT_REGISTERED))?;
    Ok(Reply::done(vec![server_name(server)]))
}

/// The request that ends a user's registration at its S-CSCF, so that another one takes over: one with all its public identities
/// (an S-CSCF of kamailio refuses one that names the private identity only).
pub fn registration_termination(hss: &Hss, nth: Nth, to: &str) -> Message {
    let origin = hss.identity().origin();
    let session = format!("{};rtr;{}", hss.identity().host, rand::random::<u64>());
    let reason = [Avp::number(avp::REASON_CODE, NEW_SERVER_ASSIGNED)];
    let mut avps = vec![Avp::text(avp::SESSION_ID, session)];
    avps.extend(common(application::CX));
    avps.extend(origin);
    avps.push(Avp::text(avp::DESTINATION_HOST, to));
    avps.push(Avp::text(avp::DESTINATION_REALM, &hss.identity().realm));
    avps.push(Avp::text(avp::USER_NAME, hss.users().private(nth)));
    let public = hss.users().public(nth);
    avps.extend(public.iter().map(|uri| Avp::text(avp::PUBLIC_IDENTITY, uri)));
    avps.push(Avp::group(avp::DEREGISTRATION_REASON, &reason));
    Message::request(application::CX, command::REGISTRATION_TERMINATION, avps)
}
