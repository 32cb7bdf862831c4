//! The kernel object, compiled into this library. `prog/build.sh` makes it, and the list of hashes whose
//! last line is the object's own (a test compares them with the files).

/// ELF readers want the bytes aligned like the file's own structures.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/gantry.bpf.o"));

/// The object's bytes.
pub fn bytes() -> &'static [u8] {
    &OBJECT.0
}

/// SHA-256 of the object: tells whether the pinned programs are these.
pub fn hash() -> [u8; 32] {
    let own = include_str!("../object/SOURCES.sha256")
        .lines()
        .last()
        .unwrap_or_default();
    let mut hash = [0; 32];
    let digits = own.get(..64).expect("build.sh writes 64 digits");
    hex::decode_to_slice(digits, &mut hash).expect("build.sh writes hexadecimal digits");
    hash
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    #[test]
    fn recorded_hash_is_the_objects() {
        let computed: [u8; 32] = Sha256::digest(super::bytes()).into();
        assert_eq!(
            super::hash(),
            computed,
            "run ebpf/prog/build.sh and commit ebpf/object"
        );
    }
}
