//! Attribute-value pairs (RFC 6733, section 4).

use std::net::Ipv4Addr;

/// Vendor of what 3GPP has defined (TS 29.230).
pub const VENDOR_3GPP: u32 = 10415;

const VENDOR_FLAG: u8 = 0x80;
const MANDATORY_FLAG: u8 = 0x40;
/// `Address` of an IPv4 address (IANA address family numbers).
const FAMILY_IPV4: [u8; 2] = [0, 1];

/// Which attribute: a number, and whose number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AvpCode {
    /// AVP Code.
    pub number: u32,
    /// Vendor-ID; 0 for those of the IETF.
    pub vendor: u32,
}

impl AvpCode {
    /// One of the IETF's.
    pub const fn base(number: u32) -> Self {
        Self { number, vendor: 0 }
    }

    /// One of 3GPP's.
    pub const fn of_3gpp(number: u32) -> Self {
        Self {
            number,
            vendor: VENDOR_3GPP,
        }
    }
}

/// An attribute with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avp {
    /// Which.
    pub code: AvpCode,
    /// The M bit: whoever does not know it refuses the message.
    pub mandatory: bool,
    /// The value as on the wire, without padding.
    pub data: Vec<u8>,
}

/// What is no list of AVPs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedAvp {
    /// It ends within an AVP.
    #[error("AVP {0} is cut off")]
    CutOff(u32),
    /// It ends within a header.
    #[error("{0} bytes are left that are no AVP")]
    Rest(usize),
    /// The value is no value of its type.
    #[error("AVP {0} is no {1}")]
    Type(u32, &'static str),
}

impl Avp {
    /// An OctetString.
    pub fn octets(code: AvpCode, data: impl Into<Vec<u8>>) -> Self {
        Self {
            code,
            mandatory: true,
            data: data.into(),
        }
    }

    /// A UTF8String or DiameterIdentity.
    pub fn text(code: AvpCode, text: impl AsRef<str>) -> Self {
        Self::octets(code, text.as_ref())
    }

    /// An Unsigned32 or Enumerated.
    pub fn number(code: AvpCode, number: u32) -> Self {
        Self::octets(code, number.to_be_bytes())
    }

    /// An Address.
    pub fn address(code: AvpCode, address: Ipv4Addr) -> Self {
        Self::octets(code, [&FAMILY_IPV4[..], &address.octets()].concat())
    }

    /// A Grouped.
    pub fn group(code: AvpCode, avps: &[Avp]) -> Self {
        let mut data = Vec::new();
        encode(avps, &mut data);
        Self::octets(code, data)
    }

    /// Without the M bit.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.mandatory = false;
        self
    }

    /// As text.
    pub fn as_text(&self) -> Result<&str, MalformedAvp> {
        std::str::from_utf8(&self.data).map_err(|_| MalformedAvp::Type(self.code.number, "text"))
    }

    /// As an Unsigned32.
    pub fn as_number(&self) -> Result<u32, MalformedAvp> {
        let bytes: [u8; 4] = (self.data.as_slice().try_into())
            .map_err(|_| MalformedAvp::Type(self.code.number, "number of 32 bits"))?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// As a Grouped.
    pub fn as_group(&self) -> Result<Vec<Avp>, MalformedAvp> {
        decode(&self.data)
    }
}

/// Looking into lists of AVPs.
pub trait Avps {
    /// The first of this code.
    fn find(&self, code: AvpCode) -> Option<&Avp>;

    /// The text of the first of this code, if that is text.
    fn text(&self, code: AvpCode) -> Option<&str> {
        self.find(code)?.as_text().ok()
    }

    /// The number of the first of this code, if that is a number.
    fn number(&self, code: AvpCode) -> Option<u32> {
        self.find(code)?.as_number().ok()
    }
}

impl Avps for [Avp] {
    fn find(&self, code: AvpCode) -> Option<&Avp> {
        self.iter().find(|avp| avp.code == code)
    }
}

/// Appends them as on the wire, padded to four bytes each.
pub(crate) fn encode(avps: &[Avp], out: &mut Vec<u8>) {
    for avp in avps {
        let vendor = avp.code.vendor != 0;
        let header = if vendor { 12 } else { 8 };
        let mut flags = if vendor { VENDOR_FLAG } else { 0 };
        if avp.mandatory {
            flags |= MANDATORY_FLAG;
        }
        let length = u32::try_from(header + avp.data.len()).expect("messages are far below 4 GiB");
        out.extend(avp.code.number.to_be_bytes());
        out.push(flags);
        out.extend(&length.to_be_bytes()[1..]);
        if vendor {
            out.extend(avp.code.vendor.to_be_bytes());
        }
        out.extend(&avp.data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// All that the bytes are.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<Avp>, MalformedAvp> {
    let mut avps = Vec::new();
    while !bytes.is_empty() {
        let (avp, rest) = decode_one(bytes)?;
        avps.push(avp);
        bytes = rest;
    }
    Ok(avps)
}

fn decode_one(bytes: &[u8]) -> Result<(Avp, &[u8]), MalformedAvp> {
    let rest = || MalformedAvp::Rest(bytes.len());
    let (number, after) = bytes.split_first_chunk::<4>().ok_or_else(rest)?;
    let ([flags, length @ ..], after) = after.split_first_chunk::<4>().ok_or_else(rest)?;
    let number = u32::from_be_bytes(*number);
    let cut_off = || MalformedAvp::CutOff(number);
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    let (vendor, after, header) = if flags & VENDOR_FLAG == 0 {
        (0, after, 8)
    } else {
        let (vendor, after) = after.split_first_chunk::<4>().ok_or_else(cut_off)?;
        (u32::from_be_bytes(*vendor), after, 12)
    };
    let size = length.checked_sub(header).ok_or_else(cut_off)?;
    let (data, after) = after.split_at_checked(size).ok_or_else(cut_off)?;
    // The last one of a message may come without its padding.
    let padding = (size.next_multiple_of(4) - size).min(after.len());
    let avp = Avp {
        code: AvpCode { number, vendor },
        mandatory: flags & MANDATORY_FLAG != 0,
        data: data.to_vec(),
    };
    Ok((avp, &after[padding..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ITEM: AvpCode = AvpCode::of_3gpp(612);

    #[test]
    fn an_avp_of_3gpp_is_as_the_rfc_draws_it() {
        let mut bytes = Vec::new();
        encode(&[Avp::text(AvpCode::of_3gpp(608), "abcde")], &mut bytes);
        let expected = b"\0\0\x02\x60\xc0\0\0\x11\0\0\x28\xafabcde\0\0\0";
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes).unwrap()[0].as_text(), Ok("abcde"));
    }

    #[test]
    fn groups_are_lists_in_an_avp() {
        let inner = [
            Avp::number(AvpCode::of_3gpp(613), 1),
            Avp::octets(AvpCode::of_3gpp(609), [1, 2, 3]),
        ];
        let group = Avp::group(ITEM, &inner);
        let mut bytes = Vec::new();
        encode(std::slice::from_ref(&group), &mut bytes);
        let list = decode(&bytes).unwrap();
        assert_eq!(list, [group]);
        let read = list[0].as_group().unwrap();
        assert_eq!(read.number(AvpCode::of_3gpp(613)), Some(1));
        assert_eq!(read, inner);
    }

    #[test]
    fn what_is_cut_off_is_said() {
        let mut bytes = Vec::new();
        encode(&[Avp::text(AvpCode::base(263), "session")], &mut bytes);
        assert_eq!(decode(&bytes[..10]), Err(MalformedAvp::CutOff(263)));
        assert_eq!(decode(&bytes[..6]), Err(MalformedAvp::Rest(6)));
        assert_eq!(
            decode(&bytes[..15]).unwrap().len(),
            1,
            "the last padding may be missing"
        );
        assert_eq!(
            decode(b"\0\0\x01\x07\x40\0\0\x07"),
            Err(MalformedAvp::CutOff(263)),
            "shorter than its header"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(avps) = decode(&bytes) {
                let mut again = Vec::new();
                encode(&avps, &mut again);
                prop_assert_eq!(decode(&again).unwrap(), avps);
            }
        }
    }
}
