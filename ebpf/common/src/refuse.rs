//! Answers to what cannot be delivered: whoever asks is told at once, instead of waiting for a time-out. And questions
//! that make a silent end notice that its peer is gone.
//!
//! TCP gets a reset (RFC 9293, section 3.10.7.1), UDP an ICMP port unreachable (RFC 1122, section 3.2.2.1), SCTP an
//! ABORT (RFC 9260, section 8.4). All come from the address that was asked.

use crate::layout::{SCTP, TCP};

/// Length of an IPv4 header without options. Packets with options get no answer.
pub const IP_BYTES: usize = 20;
/// What is read of a packet to answer it: its IPv4 header and the first bytes of the transport header.
pub const ASKED_BYTES: usize = IP_BYTES + 20;
/// Length of a TCP answer.
pub const RESET_BYTES: usize = IP_BYTES + 20;
/// Of the packet that an ICMP error quotes: its IPv4 header and 8 bytes (RFC 792).
pub const QUOTED_BYTES: usize = IP_BYTES + 8;
/// Length of an ICMP answer.
pub const UNREACHABLE_BYTES: usize = IP_BYTES + 8 + QUOTED_BYTES;
/// Length of an SCTP answer.
pub const ABORT_BYTES: usize = IP_BYTES + 16;

const ICMP: u8 = 1;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
/// SCTP chunk types.
const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;

/// The answer to a TCP segment, itself an IPv4 packet; `None` to a reset.
#[inline(always)]
pub fn reset(asked: &[u8; ASKED_BYTES]) -> Option<[u8; RESET_BYTES]> {
    let flags = asked[IP_BYTES + 13];
    if flags & RST != 0 {
        return None;
    }
    let mut out = [0; RESET_BYTES];
    reverse(&mut out, asked, TCP, RESET_BYTES as u16);
    swap_ports(&mut out, asked);
    if flags & ACK != 0 {
        copy4(&mut out, IP_BYTES + 4, asked, IP_BYTES + 8);
        out[IP_BYTES + 13] = RST;
    } else {
        let header = (asked[IP_BYTES + 12] >> 4) as u32 * 4;
        let total = u16::from_be_bytes([asked[2], asked[3]]) as u32;
        let payload = total.wrapping_sub(IP_BYTES as u32).wrapping_sub(header);
        let length = payload + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
        let sequence = word(asked, IP_BYTES + 4).wrapping_add(length);
        put4(&mut out, IP_BYTES + 8, sequence);
        out[IP_BYTES + 13] = RST | ACK;
    }
    out[IP_BYTES + 12] = 0x50;
    finish_tcp(&mut out);
    Some(out)
}

/// A SYN from `from` to `to` (address and port each). An end that believes in a connection between the two answers
/// with what it expects next, whatever the numbers (RFC 5961, section 4); the answer to that resets it.
pub fn question(from: (u32, u16), to: (u32, u16)) -> [u8; RESET_BYTES] {
    let mut out = [0; RESET_BYTES];
    header(&mut out, TCP, RESET_BYTES as u16);
    put4(&mut out, 12, from.0);
    put4(&mut out, 16, to.0);
    finish_ip(&mut out);
    put2(&mut out, IP_BYTES, from.1);
    put2(&mut out, IP_BYTES + 2, to.1);
    out[IP_BYTES + 12] = 0x50;
    out[IP_BYTES + 13] = SYN;
    finish_tcp(&mut out);
    out
}

/// The answer to a UDP datagram: ICMP, port unreachable.
#[inline(always)]
pub fn unreachable(asked: &[u8; QUOTED_BYTES]) -> [u8; UNREACHABLE_BYTES] {
    let mut out = [0; UNREACHABLE_BYTES];
    reverse(&mut out, asked, ICMP, UNREACHABLE_BYTES as u16);
    (out[IP_BYTES], out[IP_BYTES + 1]) = (3, 3);
    let mut i = 0;
    while i < QUOTED_BYTES {
        out[IP_BYTES + 8 + i] = asked[i];
        i += 1;
    }
    let sum = fold(add(0, &out, IP_BYTES, UNREACHABLE_BYTES));
    put2(&mut out, IP_BYTES + 2, sum);
    out
}

/// The datagram that [`unreachable`] answers when nobody has sent one lately.
pub fn datagram(protocol: u8, from: (u32, u16), to: (u32, u16)) -> [u8; QUOTED_BYTES] {
    let mut out = [0; QUOTED_BYTES];
    header(&mut out, protocol, QUOTED_BYTES as u16);
    put4(&mut out, 12, from.0);
    put4(&mut out, 16, to.0);
    finish_ip(&mut out);
    put2(&mut out, IP_BYTES, from.1);
    put2(&mut out, IP_BYTES + 2, to.1);
    put2(&mut out, IP_BYTES + 4, 8);
    out
}

/// The answer to an SCTP packet; `None` to one that ends an association.
#[inline(always)]
pub fn abort(asked: &[u8; ASKED_BYTES]) -> Option<[u8; ABORT_BYTES]> {
    let chunk = asked[IP_BYTES + 12];
    if chunk == ABORT || chunk == SHUTDOWN_COMPLETE {
        return None;
    }
    let mut out = [0; ABORT_BYTES];
    reverse(&mut out, asked, SCTP, ABORT_BYTES as u16);
    swap_ports(&mut out, asked);
    // To an INIT its own tag, to everything else the tag that it came with, which the T bit says.
    let (tag_at, t_bit) = if chunk == INIT { (16, 0) } else { (4, 1) };
    copy4(&mut out, IP_BYTES + 4, asked, IP_BYTES + tag_at);
    out[IP_BYTES + 12] = ABORT;
    out[IP_BYTES + 13] = t_bit;
    out[IP_BYTES + 15] = 4;
    let crc = crc32c(&out, IP_BYTES, ABORT_BYTES);
    // Least significant byte first (RFC 9260, appendix A).
    put4(&mut out, IP_BYTES + 8, crc.swap_bytes());
    Some(out)
}

/// An IPv4 header back to whom the packet came from.
#[inline(always)]
fn reverse<const N: usize, const M: usize>(out: &mut [u8; N], asked: &[u8; M], protocol: u8, length: u16) {
    header(out, protocol, length);
    copy4(out, 12, asked, 16);
    copy4(out, 16, asked, 12);
    finish_ip(out);
}

#[inline(always)]
fn header<const N: usize>(out: &mut [u8; N], protocol: u8, length: u16) {
    out[0] = 0x45;
    put2(out, 2, length);
    out[6] = 0x40; // not to be fragmented
    out[8] = 64;
    out[9] = protocol;
}

#[inline(always)]
fn finish_ip<const N: usize>(out: &mut [u8; N]) {
    let sum = fold(add(0, out, 0, IP_BYTES));
    put2(out, 10, sum);
}

#[inline(always)]
fn finish_tcp(out: &mut [u8; RESET_BYTES]) {
    let pseudo = add(TCP as u32 + 20, out, 12, IP_BYTES);
    let sum = fold(add(pseudo, out, IP_BYTES, RESET_BYTES));
    put2(out, IP_BYTES + 16, sum);
}

#[inline(always)]
fn swap_ports<const N: usize, const M: usize>(out: &mut [u8; N], asked: &[u8; M]) {
    let mut i = 0;
    while i < 2 {
        out[IP_BYTES + i] = asked[IP_BYTES + 2 + i];
        out[IP_BYTES + 2 + i] = asked[IP_BYTES + i];
        i += 1;
    }
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn put4<const N: usize>(out: &mut [u8; N], at: usize, value: u32) {
    [out[at], out[at + 1], out[at + 2], out[at + 3]] = value.to_be_bytes();
}

#[inline(always)]
fn put2<const N: usize>(out: &mut [u8; N], at: usize, value: u16) {
    [out[at], out[at + 1]] = value.to_be_bytes();
}

#[inline(always)]
fn copy4<const N: usize, const M: usize>(out: &mut [u8; N], to: usize, from: &[u8; M], at: usize) {
    put4(out, to, word(from, at));
}

/// Adds the 16-bit words of an even number of bytes (RFC 1071).
#[inline(always)]
fn add<const N: usize>(mut sum: u32, bytes: &[u8; N], from: usize, to: usize) -> u32 {
    let mut i = from;
    while i < to {
        sum += u16::from_be_bytes([bytes[i], bytes[i + 1]]) as u32;
        i += 2;
    }
    sum
}

#[inline(always)]
fn fold(mut sum: u32) -> u16 {
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

/// CRC32c (RFC 9260, appendix A), bit by bit: no table that would have to be kept in a map.
#[inline(always)]
fn crc32c<const N: usize>(bytes: &[u8; N], from: usize, to: usize) -> u32 {
    let mut crc = u32::MAX;
    let mut i = from;
    while i < to {
        crc ^= bytes[i] as u32;
        let mut bit = 0;
        while bit < 8 {
            // A branch for each bit would be 2^128 ways through the program to the verifier, hence hidden from the compiler.
            let lowest = core::hint::black_box(crc & 1);
            crc = (crc >> 1) ^ lowest.wrapping_mul(0x82f6_3b78);
            bit += 1;
        }
        i += 1;
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::full;
    use crate::layout::UDP;

    const CLIENT: (u32, u16) = (0x0a55_0002, 40000);
    const VIP: (u32, u16) = (0x0a56_0001, 5060);

    /// A packet of the client's to the service with this in its transport header after the ports.
    fn asked(protocol: u8, after_ports: [u8; 16], total: u16) -> [u8; ASKED_BYTES] {
        let mut out = [0; ASKED_BYTES];
        header(&mut out, protocol, total);
        put4(&mut out, 12, CLIENT.0);
        put4(&mut out, 16, VIP.0);
        put2(&mut out, 20, CLIENT.1);
        put2(&mut out, 22, VIP.1);
        out[24..].copy_from_slice(&after_ports);
        out
    }

    fn segment(sequence: u32, acknowledged: u32, flags: u8, total: u16) -> [u8; ASKED_BYTES] {
        let mut after = [0; 16];
        after[..4].copy_from_slice(&sequence.to_be_bytes());
        after[4..8].copy_from_slice(&acknowledged.to_be_bytes());
        (after[8], after[9]) = (0x50, flags);
        asked(TCP, after, total)
    }

    fn check_head(out: &[u8], protocol: u8) {
        assert_eq!(full(&out[..20], 0), 0, "IPv4 checksum");
        assert_eq!(u16::from_be_bytes([out[2], out[3]]) as usize, out.len());
        assert_eq!(out[9], protocol);
        assert_eq!(out[12..16], VIP.0.to_be_bytes());
        assert_eq!(out[16..20], CLIENT.0.to_be_bytes());
    }

    fn tcp_checksum(out: &[u8]) -> u16 {
        let pseudo = u32::from(!full(&out[12..20], 0));
        full(&out[20..], pseudo + u32::from(TCP) + 20)
    }

    #[test]
    fn resets_as_rfc_9293_has_them() {
        // A SYN is acknowledged, so that the client believes it; a FIN and payload count, too.
        for (flags, payload, acknowledged) in [(SYN, 0, 1001), (FIN, 5, 1006), (0, 7, 1007)] {
            let out = reset(&segment(1000, 0, flags, 40 + payload)).unwrap();
            check_head(&out, TCP);
            assert_eq!((word(&out, 24), word(&out, 28)), (0, acknowledged));
            assert_eq!((out[32], out[33], tcp_checksum(&out)), (0x50, RST | ACK, 0));
            assert_eq!(out[20..24], [0x13, 0xc4, 0x9c, 0x40]);
        }
        let out = reset(&segment(1000, 77, ACK, 40)).unwrap();
        assert_eq!((word(&out, 24), word(&out, 28), out[33]), (77, 0, RST));
        assert_eq!(tcp_checksum(&out), 0);
        assert!(reset(&segment(1000, 77, RST | ACK, 40)).is_none());
    }

    #[test]
    fn a_question_is_a_syn_with_right_checksums() {
        let out = question(VIP, CLIENT);
        check_head(&out, TCP);
        assert_eq!((out[33], tcp_checksum(&out)), (SYN, 0));
    }

    #[test]
    fn an_unreachable_quotes_what_it_answers() {
        let quoted = datagram(UDP, CLIENT, VIP);
        let out = unreachable(&quoted);
        check_head(&out, ICMP);
        assert_eq!((out[20], out[21], full(&out[20..], 0)), (3, 3, 0));
        assert_eq!(out[28..], quoted);
    }

    #[test]
    fn crc32c_of_the_nine_digits() {
        assert_eq!(crc32c(b"123456789", 0, 9), 0xe306_9283);
    }

    #[test]
    fn aborts_carry_the_tag_that_the_other_end_believes() {
        let mut after = [0u8; 16];
        after[..4].copy_from_slice(&[9, 9, 9, 9]);
        after[12..].copy_from_slice(&[1, 2, 3, 4]);
        after[8] = INIT;
        let out = abort(&asked(SCTP, after, 60)).unwrap();
        check_head(&out, SCTP);
        assert_eq!(
            (&out[24..28], &out[32..]),
            (&[1, 2, 3, 4][..], &[ABORT, 0, 0, 4][..])
        );
        let (crc, mut bare) = (u32::from_le_bytes([out[28], out[29], out[30], out[31]]), out);
        bare[28..32].fill(0);
        assert_eq!(crc, crc32c(&bare, IP_BYTES, ABORT_BYTES));
        after[8] = 0;
        let out = abort(&asked(SCTP, after, 60)).unwrap();
        assert_eq!((&out[24..28], out[33]), (&[9, 9, 9, 9][..], 1));
        for chunk in [ABORT, SHUTDOWN_COMPLETE] {
            after[8] = chunk;
            assert!(abort(&asked(SCTP, after, 60)).is_none());
        }
    }
}
