//! What a request comes to: the attributes of the answer.

use gantry_lab_diameter::codes::{avp, result};
use gantry_lab_diameter::{Avp, AvpCode, Avps, MAX_NAME_BYTES, Message, VENDOR_3GPP};

/// It was done: Result-Code or Experimental-Result, and the rest.
#[derive(Debug)]
pub struct Reply(Vec<Avp>);

impl Reply {
    /// Plainly done.
    pub fn done(avps: Vec<Avp>) -> Self {
        Self::with(Avp::number(avp::RESULT_CODE, result::SUCCESS), avps)
    }

    /// Done, with a word of 3GPP's.
    pub fn experimental(code: u32, avps: Vec<Avp>) -> Self {
        Self::with(experimental(code), avps)
    }

    /// The attributes of the answer.
    pub fn into_avps(self) -> Vec<Avp> {
        self.0
    }

    fn with(result: Avp, mut avps: Vec<Avp>) -> Self {
        avps.insert(0, result);
        Self(avps)
    }
}

/// It was not done.
#[derive(Debug)]
pub struct Refusal(Vec<Avp>);

impl Refusal {
    /// With a Result-Code, in words.
    pub fn new(code: u32, why: &str) -> Self {
        let why = Avp::text(avp::ERROR_MESSAGE, why).optional();
        Self(vec![Avp::number(avp::RESULT_CODE, code), why])
    }

    /// With a word of 3GPP's.
    pub fn experimental(code: u32) -> Self {
        Self(vec![experimental(code)])
    }

    /// The attributes of the answer.
    pub fn into_avps(self) -> Vec<Avp> {
        self.0
    }
}

fn experimental(code: u32) -> Avp {
    let parts = [
        Avp::number(avp::VENDOR_ID, VENDOR_3GPP),
        Avp::number(avp::EXPERIMENTAL_RESULT_CODE, code),
    ];
    Avp::group(avp::EXPERIMENTAL_RESULT, &parts)
}

/// The text of an attribute that must be there, and not too long to be kept.
pub fn required<'a>(request: &'a Message, code: AvpCode, name: &str) -> Result<&'a str, Refusal> {
    let text = request.avps.text(code);
    let text =
        text.ok_or_else(|| Refusal::new(result::MISSING_AVP, &format!("{name} is missing, or no text")))?;
    if text.len() > MAX_NAME_BYTES {
        let why = format!("{name} has more than {MAX_NAME_BYTES} bytes");
        return Err(Refusal::new(result::INVALID_AVP_LENGTH, &why));
    }
    Ok(text)
}

/// Auth-Session-State: nothing is remembered of a session.
const NO_STATE: u32 = 1;

/// Attributes that each message of an application of 3GPP's has.
pub fn common(application: u32) -> Vec<Avp> {
    let parts = [
        Avp::number(avp::VENDOR_ID, VENDOR_3GPP),
        Avp::number(avp::AUTH_APPLICATION_ID, application),
    ];
    vec![
        Avp::group(avp::VENDOR_SPECIFIC_APPLICATION_ID, &parts),
        Avp::number(avp::AUTH_SESSION_STATE, NO_STATE),
    ]
}
