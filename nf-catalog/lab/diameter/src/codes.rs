//! Numbers: of the base protocol (RFC 6733), Cx (TS 29.229), S6a (TS 29.272) and Gx (TS 29.212, RFC 4006).

/// Applications.
pub mod application {
    /// The base protocol's own messages.
    pub const BASE: u32 = 0;
    /// Cx and Dx.
    pub const CX: u32 = 16_777_216;
    /// Gx.
    pub const GX: u32 = 16_777_238;
    /// S6a.
    pub const S6A: u32 = 16_777_251;
    /// What relays say that they do.
    pub const RELAY: u32 = 0xffff_ffff;
}

/// Commands.
pub mod command {
    /// CER, CEA.
    pub const CAPABILITIES_EXCHANGE: u32 = 257;
    /// CCR, CCA.
    pub const CREDIT_CONTROL: u32 = 272;
    /// DWR, DWA.
    pub const DEVICE_WATCHDOG: u32 = 280;
    /// DPR, DPA.
    pub const DISCONNECT_PEER: u32 = 282;
    /// UAR, UAA.
    pub const USER_AUTHORIZATION: u32 = 300;
    /// SAR, SAA.
    pub const SERVER_ASSIGNMENT: u32 = 301;
    /// LIR, LIA.
    pub const LOCATION_INFO: u32 = 302;
    /// MAR, MAA.
    pub const MULTIMEDIA_AUTH: u32 = 303;
    /// RTR, RTA.
    pub const REGISTRATION_TERMINATION: u32 = 304;
    /// ULR, ULA.
    pub const UPDATE_LOCATION: u32 = 316;
    /// AIR, AIA.
    pub const AUTHENTICATION_INFORMATION: u32 = 318;
}

/// Values of Result-Code and Experimental-Result-Code.
pub mod result {
    /// Done.
    pub const SUCCESS: u32 = 2001;
    /// Cx, experimental: registered for the first time.
    pub const FIRST_REGISTRATION: u32 = 2001;
    /// Cx, experimental: registered before.
    pub const SUBSEQUENT_REGISTRATION: u32 = 2002;
    /// The command is of no application that is spoken here.
    pub const COMMAND_UNSUPPORTED: u32 = 3001;
    /// A value makes no sense.
    pub const INVALID_AVP_VALUE: u32 = 5004;
    /// Something that must be there is not.
    pub const MISSING_AVP: u32 = 5005;
    /// No application in common.
    pub const NO_COMMON_APPLICATION: u32 = 5010;
    /// It did not work.
    pub const UNABLE_TO_COMPLY: u32 = 5012;
    /// A value is too long.
    pub const INVALID_AVP_LENGTH: u32 = 5014;
    /// There is no such session.
    pub const UNKNOWN_SESSION_ID: u32 = 5002;
    /// Cx and S6a, experimental: there is no such user.
    pub const USER_UNKNOWN: u32 = 5001;
    /// Cx, experimental: the identities are not of one user.
    pub const IDENTITIES_DONT_MATCH: u32 = 5002;
    /// Cx, experimental: nobody serves that identity.
    pub const IDENTITY_NOT_REGISTERED: u32 = 5003;
}

/// Attributes.
pub mod avp {
    use crate::AvpCode;

    /// Who the subscriber is: IMPI or IMSI.
    pub const USER_NAME: AvpCode = AvpCode::base(1);
    /// Address of the sender.
    pub const HOST_IP_ADDRESS: AvpCode = AvpCode::base(257);
    /// Application that a node speaks.
    pub const AUTH_APPLICATION_ID: AvpCode = AvpCode::base(258);
    /// Application of a vendor that a node speaks: a group.
    pub const VENDOR_SPECIFIC_APPLICATION_ID: AvpCode = AvpCode::base(260);
    /// Which session.
    pub const SESSION_ID: AvpCode = AvpCode::base(263);
    /// Who has sent it.
    pub const ORIGIN_HOST: AvpCode = AvpCode::base(264);
    /// Vendors whose AVPs a node knows.
    pub const SUPPORTED_VENDOR_ID: AvpCode = AvpCode::base(265);
    /// Whose number it is.
    pub const VENDOR_ID: AvpCode = AvpCode::base(266);
    /// What came of it.
    pub const RESULT_CODE: AvpCode = AvpCode::base(268);
    /// What a node is called by its maker.
    pub const PRODUCT_NAME: AvpCode = AvpCode::base(269);
    /// Why a peer goes.
    pub const DISCONNECT_CAUSE: AvpCode = AvpCode::base(273);
    /// Whether the server remembers sessions.
    pub const AUTH_SESSION_STATE: AvpCode = AvpCode::base(277);
    /// In words.
    pub const ERROR_MESSAGE: AvpCode = AvpCode::base(281);
    /// Whose realm it goes to.
    pub const DESTINATION_REALM: AvpCode = AvpCode::base(283);
    /// What a relay keeps for the way back: a group.
    pub const PROXY_INFO: AvpCode = AvpCode::base(284);
    /// To whom it goes.
    pub const DESTINATION_HOST: AvpCode = AvpCode::base(293);
    /// Of whose realm the sender is.
    pub const ORIGIN_REALM: AvpCode = AvpCode::base(296);
    /// What came of it, in a vendor's numbers: a group.
    pub const EXPERIMENTAL_RESULT: AvpCode = AvpCode::base(297);
    /// The number within.
    pub const EXPERIMENTAL_RESULT_CODE: AvpCode = AvpCode::base(298);

    /// Which of a session's requests, counted.
    pub const CC_REQUEST_NUMBER: AvpCode = AvpCode::base(415);
    /// Which of a session's requests: its beginning, a change, its end.
    pub const CC_REQUEST_TYPE: AvpCode = AvpCode::base(416);

    /// SIP URI or tel URI of a user.
    pub const PUBLIC_IDENTITY: AvpCode = AvpCode::of_3gpp(601);
    /// SIP URI of an S-CSCF.
    pub const SERVER_NAME: AvpCode = AvpCode::of_3gpp(602);
    /// A user's profile, XML.
    pub const USER_DATA: AvpCode = AvpCode::of_3gpp(606);
    /// How many authentication vectors.
    pub const SIP_NUMBER_AUTH_ITEMS: AvpCode = AvpCode::of_3gpp(607);
    /// Which algorithm.
    pub const SIP_AUTHENTICATION_SCHEME: AvpCode = AvpCode::of_3gpp(608);
    /// RAND and AUTN.
    pub const SIP_AUTHENTICATE: AvpCode = AvpCode::of_3gpp(609);
    /// Expected answer; in a request after a failed synchronisation RAND and AUTS.
    pub const SIP_AUTHORIZATION: AvpCode = AvpCode::of_3gpp(610);
    /// One vector: a group.
    pub const SIP_AUTH_DATA_ITEM: AvpCode = AvpCode::of_3gpp(612);
    /// Its number.
    pub const SIP_ITEM_NUMBER: AvpCode = AvpCode::of_3gpp(613);
    /// Why an S-CSCF is assigned.
    pub const SERVER_ASSIGNMENT_TYPE: AvpCode = AvpCode::of_3gpp(614);
    /// Why a registration is ended by the HSS: a group.
    pub const DEREGISTRATION_REASON: AvpCode = AvpCode::of_3gpp(615);
    /// Its number.
    pub const REASON_CODE: AvpCode = AvpCode::of_3gpp(616);
    /// Register, de-register, or with capabilities.
    pub const USER_AUTHORIZATION_TYPE: AvpCode = AvpCode::of_3gpp(623);
    /// CK.
    pub const CONFIDENTIALITY_KEY: AvpCode = AvpCode::of_3gpp(625);
    /// IK.
    pub const INTEGRITY_KEY: AvpCode = AvpCode::of_3gpp(626);

    /// Vectors that an MME asks for: a group.
    pub const REQUESTED_EUTRAN_AUTHENTICATION_INFO: AvpCode = AvpCode::of_3gpp(1408);
    /// How many.
    pub const NUMBER_OF_REQUESTED_VECTORS: AvpCode = AvpCode::of_3gpp(1410);
    /// RAND and AUTS after a failed synchronisation.
    pub const RESYNCHRONIZATION_INFO: AvpCode = AvpCode::of_3gpp(1411);
    /// Vectors: a group.
    pub const AUTHENTICATION_INFO: AvpCode = AvpCode::of_3gpp(1413);
    /// One of E-UTRAN: a group.
    pub const E_UTRAN_VECTOR: AvpCode = AvpCode::of_3gpp(1414);
    /// Which visited network.
    pub const VISITED_PLMN_ID: AvpCode = AvpCode::of_3gpp(1407);
    /// Challenge.
    pub const RAND: AvpCode = AvpCode::of_3gpp(1447);
    /// Expected answer.
    pub const XRES: AvpCode = AvpCode::of_3gpp(1448);
    /// Token by which the network shows that it knows the key.
    pub const AUTN: AvpCode = AvpCode::of_3gpp(1449);
    /// Key of the visited network.
    pub const KASME: AvpCode = AvpCode::of_3gpp(1450);
    /// What a subscriber may do: a group.
    pub const SUBSCRIPTION_DATA: AvpCode = AvpCode::of_3gpp(1400);
}
