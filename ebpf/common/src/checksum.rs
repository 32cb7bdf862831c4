//! Internet checksum, changed in place (RFC 1624, equation 3).

/// Checksum after a 32-bit field changed from `old` to `new`, all in host byte order.
#[inline(always)]
pub const fn replace32(checksum: u16, old: u32, new: u32) -> u16 {
    let mut sum = !checksum as u32;
    sum += (!old >> 16) + (!old & 0xffff);
    sum += (new >> 16) + (new & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

/// Checksum over `bytes` (RFC 1071), an odd last byte padded with zero, with `sum` added.
pub fn full(bytes: &[u8], mut sum: u32) -> u16 {
    for pair in bytes.chunks(2) {
        let low = if pair.len() == 2 { pair[1] } else { 0 };
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1624_example() {
        // Section 4: checksum 0xDD2F, field 0x5555 becomes 0x3285, the result is 0x0000.
        assert_eq!(replace32(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn delta_equals_recomputation(mut header in proptest::array::uniform20(any::<u8>()), new: u32) {
            header[0] = 0x45; // an all-zero header has two checksums
            header[10] = 0;
            header[11] = 0;
            let before = full(&header, 0);
            let old = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
            header[16..20].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(replace32(before, old, new), full(&header, 0));
        }
    }
}
