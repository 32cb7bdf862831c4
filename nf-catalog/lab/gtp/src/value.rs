//! Values of elements, as far as S11 needs them (TS 29.274, 8).

use std::net::Ipv4Addr;

use crate::element::{Element, kind};

/// Interface types of an F-TEID (TS 29.274, 8.22).
pub mod interface {
    /// S1-U, the eNB's end.
    pub const S1_U_ENB: u8 = 0;
    /// S1-U, the SGW's end.
    pub const S1_U_SGW: u8 = 1;
    /// S5, the PGW's end of the control plane.
    pub const S5_PGW: u8 = 7;
    /// S11, the MME's end.
    pub const S11_MME: u8 = 10;
    /// S11, the SGW's end.
    pub const S11_SGW: u8 = 11;
}

/// An F-TEID has an IPv4 address.
const V4_FLAG: u8 = 0x80;
const INTERFACE_MASK: u8 = 0x3f;
/// PDN type IPv4 (TS 29.274, 8.34).
pub(crate) const PDN_IPV4: u8 = 1;
/// Digits of an IMSI at most (TS 23.003, 2.2).
const IMSI_DIGITS: usize = 15;
/// Bytes of a bit rate in a Bearer QoS.
const RATE_BYTES: usize = 5;

/// An element whose value is no value of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of element {0} is none of its type")]
pub struct MalformedValue(pub u8);

/// An end of a tunnel: whose, what it is called there, where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FTeid {
    /// See [`interface`].
    pub interface: u8,
    /// Its name there.
    pub teid: u32,
    /// Where.
    pub address: Ipv4Addr,
}

impl FTeid {
    pub(crate) fn element(&self) -> Element {
        let mut value = vec![V4_FLAG | self.interface];
        value.extend(self.teid.to_be_bytes());
        value.extend(self.address.octets());
        Element::new(kind::F_TEID, value)
    }

    pub(crate) fn read(element: &Element) -> Result<Self, MalformedValue> {
        let [flags, a, b, c, d, address @ ..] = element.value.as_slice() else {
            return Err(MalformedValue(element.kind));
        };
        let address = address
            .first_chunk::<4>()
            .filter(|_| flags & V4_FLAG != 0)
            .ok_or(MalformedValue(element.kind))?;
        Ok(Self {
            interface: flags & INTERFACE_MASK,
            teid: u32::from_be_bytes([*a, *b, *c, *d]),
            address: (*address).into(),
        })
    }
}

/// A network: country and network code, as in TS 24.008, 10.5.1.13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plmn(pub [u8; 3]);

impl Plmn {
    /// From five or six digits, for example `00101`.
    pub fn new(digits: &str) -> Option<Self> {
        let digits: Vec<u8> = digits
            .bytes()
            .map(|byte| byte.is_ascii_digit().then(|| byte - b'0'))
            .collect::<Option<_>>()?;
        match digits.as_slice() {
            [c1, c2, c3, n1, n2] => Some(Self([c2 << 4 | c1, 0xf0 | c3, n2 << 4 | n1])),
            [c1, c2, c3, n1, n2, n3] => Some(Self([c2 << 4 | c1, n3 << 4 | c3, n2 << 4 | n1])),
            _ => None,
        }
    }
}

/// Two digits a byte, the first one low (TS 29.274, 8.3). What are no digits, and too many, are left out.
pub(crate) fn imsi(digits: &str) -> Element {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(u8::is_ascii_digit)
        .take(IMSI_DIGITS)
        .collect();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [low, high] => (high - b'0') << 4 | (low - b'0'),
        _ => 0xf0 | (pair[0] - b'0'),
    });
    Element::new(kind::IMSI, pairs.collect::<Vec<_>>())
}

/// Labels with their lengths before them (TS 23.003, 9.1).
pub(crate) fn apn(name: &str) -> Element {
    let mut value = Vec::new();
    for label in name.split('.') {
        let label = &label.as_bytes()[..label.len().min(63)];
        value.push(label.len() as u8);
        value.extend(label);
    }
    Element::new(kind::APN, value)
}

/// Where the device is: tracking area and cell (TS 29.274, 8.21).
pub(crate) fn location(Plmn(plmn): Plmn, area: u16, cell: u32) -> Element {
    const TAI_AND_ECGI: u8 = 0x18;
    let mut value = vec![TAI_AND_ECGI];
    value.extend(plmn);
    value.extend(area.to_be_bytes());
    value.extend(plmn);
    value.extend((cell & 0x0fff_ffff).to_be_bytes());
    Element::new(kind::ULI, value)
}

/// QCI and priority of a bearer without a guaranteed rate (TS 29.274, 8.15).
pub(crate) fn bearer_qos(qci: u8, priority: u8) -> Element {
    let mut value = vec![(priority & 0x0f) << 2, qci];
    value.resize(value.len() + 4 * RATE_BYTES, 0);
    Element::new(kind::BEARER_QOS, value)
}

/// Most that a device sends and receives, in kbit/s (TS 29.274, 8.7).
pub(crate) fn ambr(up_kbit_s: u32, down_kbit_s: u32) -> Element {
    let value = [up_kbit_s.to_be_bytes(), down_kbit_s.to_be_bytes()].concat();
    Element::new(kind::AMBR, value)
}

/// An address of IPv4, all zeros for one that is asked for (TS 29.274, 8.14).
pub(crate) fn pdn_address(address: Ipv4Addr) -> Element {
    let mut value = vec![PDN_IPV4];
    value.extend(address.octets());
    Element::new(kind::PAA, value)
}

/// The address that was given.
pub(crate) fn read_pdn_address(element: &Element) -> Result<Ipv4Addr, MalformedValue> {
    match element.value.as_slice() {
        [PDN_IPV4, a, b, c, d] => Ok(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => Err(MalformedValue(element.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_the_standard_draws_them() {
        let hex = |element: Element| hex::encode(element.value);
        assert_eq!(hex(imsi("001010000000001")), "00010100000000f1");
        assert_eq!(hex(imsi("26201")), "6202f1");
        assert_eq!(hex(apn("ims.lab")), "03696d73036c6162");
        assert_eq!(Plmn::new("00101"), Some(Plmn([0x00, 0xf1, 0x10])));
        assert_eq!(Plmn::new("310410"), Some(Plmn([0x13, 0x00, 0x14])));
        assert_eq!([Plmn::new("0010"), Plmn::new("0010x")], [None, None]);
        let plmn = Plmn([0x00, 0xf1, 0x10]);
        assert_eq!(hex(location(plmn, 1, 0x100)), "1800f110000100f11000000100");
        assert_eq!(hex(bearer_qos(9, 8)), format!("2009{}", "00".repeat(20)));
        assert_eq!(hex(ambr(1000, 2000)), "000003e8000007d0");
        assert_eq!(hex(pdn_address(Ipv4Addr::new(10, 45, 0, 2))), "010a2d0002");
    }

    #[test]
    fn an_end_of_a_tunnel_comes_back_as_it_went() {
        let end = FTeid {
            interface: interface::S11_MME,
            teid: 0x0102_0304,
            address: Ipv4Addr::new(10, 0, 0, 1),
        };
        assert_eq!(hex::encode(end.element().value), "8a010203040a000001");
        assert_eq!(FTeid::read(&end.element()), Ok(end));
        let mut without = end.element();
        without.value[0] &= !V4_FLAG;
        assert_eq!(FTeid::read(&without), Err(MalformedValue(kind::F_TEID)));
        without.value.truncate(4);
        assert_eq!(FTeid::read(&without), Err(MalformedValue(kind::F_TEID)));
    }
}
