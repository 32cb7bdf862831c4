//! What a subscriber's card and the home network share, and what both make of it.

use hmac::{Hmac, KeyInit, Mac};
use milenage::Milenage;
use sha2::Sha256;

use crate::{Seen, Sqn};

/// Of a vector for anything but E-UTRAN.
const AMF: [u8; 2] = [0, 0];
/// The separation bit: of a vector for E-UTRAN, and of no other (TS 33.401, 6.1.1).
const AMF_EPS: [u8; 2] = [0x80, 0];
/// A synchronisation failure is told with this one (TS 33.102, 6.3.3).
const AMF_RESYNC: [u8; 2] = [0, 0];
/// FC of the derivation of KASME (TS 33.401, A.2).
const FC_KASME: u8 = 0x10;

/// K and OPc of a subscriber. It has no `Debug`: nobody is to find it in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    k: [u8; 16],
    opc: [u8; 16],
}

/// An authentication vector.
#[derive(Clone, PartialEq, Eq)]
pub struct Vector {
    /// The challenge.
    pub rand: [u8; 16],
    /// Shows that the network knows the key.
    pub autn: [u8; 16],
    /// The answer that is expected.
    pub xres: [u8; 8],
    /// CK.
    pub ck: [u8; 16],
    /// IK.
    pub ik: [u8; 16],
}

/// What a card answers to a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// RES.
    pub res: [u8; 8],
    /// CK.
    pub ck: [u8; 16],
    /// IK.
    pub ik: [u8; 16],
}

/// What a card tells a network whose number is not fresh.
pub type Auts = [u8; 14];

/// Why a card does not answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthentic {
    /// The network does not know the key.
    #[error("the network is not authentic: it does not know the key")]
    Mac,
    /// The number was there already.
    #[error("the network's sequence number is not fresh")]
    Sync(Auts),
}

impl Key {
    /// From K and OPc.
    pub fn new(k: [u8; 16], opc: [u8; 16]) -> Self {
        Self { k, opc }
    }

    fn milenage(&self) -> Milenage {
        Milenage::new_with_opc(self.k, self.opc)
    }

    /// The home network: a vector for this challenge and number.
    pub fn vector(&self, rand: [u8; 16], sqn: Sqn) -> Vector {
        self.vector_with(rand, sqn, AMF)
    }

    /// The same for E-UTRAN.
    pub fn eps_vector(&self, rand: [u8; 16], sqn: Sqn) -> Vector {
        self.vector_with(rand, sqn, AMF_EPS)
    }

    fn vector_with(&self, rand: [u8; 16], sqn: Sqn, amf: [u8; 2]) -> Vector {
        let mut milenage = self.milenage();
        let mac = milenage.f1(&rand, &sqn.to_bytes(), &amf);
        let (xres, ck, ik, ak) = milenage.f2345(&rand);
        let mut autn = [0; 16];
        autn[..6].copy_from_slice(&xor(sqn.to_bytes(), ak));
        autn[6..8].copy_from_slice(&amf);
        autn[8..].copy_from_slice(&mac);
        Vector {
            rand,
            autn,
            xres,
            ck,
            ik,
        }
    }

    /// The home network: the number that a card has told, if it was this card.
    pub fn resync(&self, rand: &[u8; 16], auts: &Auts) -> Option<Sqn> {
        let mut milenage = self.milenage();
        let ak = milenage.f5star(rand);
        let (hidden, told) = auts.split_first_chunk::<6>()?;
        let sqn = xor(*hidden, ak);
        let mac = milenage.f1star(rand, &sqn, &AMF_RESYNC);
        (mac == *told).then(|| Sqn::of_bytes(sqn))
    }

    /// The card: the answer to a challenge, if the network knows the key and its number is fresh.
    pub fn answer(&self, rand: &[u8; 16], autn: &[u8; 16], seen: &mut Seen) -> Result<Answer, NotAuthentic> {
        let mut milenage = self.milenage();
        let (res, ck, ik, ak) = milenage.f2345(rand);
        let [hidden @ .., _, _, _, _, _, _, _, _, _, _] = *autn;
        let (amf, mac) = ([autn[6], autn[7]], &autn[8..]);
        let sqn = xor(hidden, ak);
        if milenage.f1(rand, &sqn, &amf) != *mac {
            return Err(NotAuthentic::Mac);
        }
        if !seen.take(Sqn::of_bytes(sqn)) {
            return Err(NotAuthentic::Sync(self.auts(rand, seen.highest())));
        }
        Ok(Answer { res, ck, ik })
    }

    fn auts(&self, rand: &[u8; 16], sqn: Sqn) -> Auts {
        let mut milenage = self.milenage();
        let mac = milenage.f1star(rand, &sqn.to_bytes(), &AMF_RESYNC);
        let ak = milenage.f5star(rand);
        let mut auts = [0; 14];
        auts[..6].copy_from_slice(&xor(sqn.to_bytes(), ak));
        auts[6..].copy_from_slice(&mac);
        auts
    }
}

impl Vector {
    /// The key of a visited LTE network (TS 33.401, A.2), by its identity of three bytes.
    pub fn kasme(&self, plmn: [u8; 3]) -> [u8; 32] {
        let hidden = &self.autn[..6];
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&[self.ck, self.ik].concat()).expect("any length is a key");
        mac.update(&[FC_KASME]);
        for part in [&plmn[..], hidden] {
            mac.update(part);
            mac.update(&[0, part.len() as u8]);
        }
        mac.finalize().into_bytes().into()
    }
}

fn xor(a: [u8; 6], b: [u8; 6]) -> [u8; 6] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// Test set 1 of TS 35.208, 4.3.
    fn set_1() -> (Key, [u8; 16], Sqn) {
        let key = Key::new(
            bytes("465b5ce8b199b49faa5f0a2ee238a6bc"),
            bytes("cd63cb71954a9f4e48a5994e37a02baf"),
        );
        let sqn = Sqn::of_bytes(bytes("ff9bb4d0b607"));
        (key, bytes("23553cbe9637a89d218ae64dae47bf35"), sqn)
    }

    #[test]
    fn a_vector_is_as_the_standard_has_it() {
        let (key, rand, sqn) = set_1();
        let vector = key.vector(rand, sqn);
        assert_eq!(hex::encode(vector.xres), "a54211d5e3ba50bf");
        assert_eq!(hex::encode(vector.ck), "b40ba9a3c58b2a05bbf0d987b21bf8cb");
        assert_eq!(hex::encode(vector.ik), "f769bcd751044604127672711c6d3441");
        // SQN xor AK, with AK = aa689c648370.
        assert_eq!(hex::encode(&vector.autn[..6]), "55f328b43577");
    }

    #[test]
    fn the_card_answers_what_the_network_expects() {
        let (key, rand, sqn) = set_1();
        for vector in [key.vector(rand, sqn), key.eps_vector(rand, sqn)] {
            let answer = key.answer(&rand, &vector.autn, &mut Seen::default());
            let answer = answer.unwrap_or_else(|why| panic!("{why}"));
            assert!(answer.res == vector.xres && answer.ck == vector.ck && answer.ik == vector.ik);
        }
    }

    #[test]
    fn only_a_vector_for_e_utran_has_the_separation_bit() {
        let (key, rand, sqn) = set_1();
        let amf = |vector: Vector| [vector.autn[6], vector.autn[7]];
        assert_eq!(amf(key.vector(rand, sqn)), [0, 0]);
        assert_eq!(amf(key.eps_vector(rand, sqn)), [0x80, 0]);
    }

    #[test]
    fn a_network_that_does_not_know_the_key_is_not_answered() {
        let (key, rand, sqn) = set_1();
        let mut vector = key.vector(rand, sqn);
        vector.autn[15] ^= 1;
        let why = key.answer(&rand, &vector.autn, &mut Seen::default()).err();
        assert_eq!(why, Some(NotAuthentic::Mac));
    }

    #[test]
    fn a_number_that_is_not_fresh_is_told_and_set_right() {
        let (key, rand, sqn) = set_1();
        let mut seen = Seen::default();
        let known = key.vector(rand, sqn);
        assert!(key.answer(&rand, &known.autn, &mut seen).is_ok());
        let Some(NotAuthentic::Sync(auts)) = key.answer(&rand, &known.autn, &mut seen).err() else {
            panic!("it is not fresh")
        };
        assert_eq!(key.resync(&rand, &auts), Some(sqn));
        let mut forged = auts;
        forged[13] ^= 1;
        assert_eq!(key.resync(&rand, &forged), None);
        assert!(
            key.answer(&rand, &key.vector(rand, sqn.next()).autn, &mut seen)
                .is_ok()
        );
    }

    #[test]
    fn kasme_depends_on_the_visited_network() {
        let (key, rand, sqn) = set_1();
        let vector = key.eps_vector(rand, sqn);
        assert_ne!(vector.kasme([0, 0xf1, 0x10]), vector.kasme([0, 0xf1, 0x20]));
    }
}
