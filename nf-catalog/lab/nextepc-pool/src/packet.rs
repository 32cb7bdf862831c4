//! Packet buffers of nextepc's libcore (core_pkbuf.h), from libc and not from a pool of 256: some are lost whenever something fails, such
//! as two by each request that a PCRF does not grant, and without them the program lives on and hears nothing.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::memory::core_malloc;

/// `MAX_SIZEOF_HEADROOM`: the room before a packet, at most.
const HEADROOM: u16 = 128;
/// Sizes of clusters without that room, as in the original: whoever writes a little beyond what was asked finds the same room.
const SIZES: [u16; 6] = [128, 256, 512, 1024, 2048, 8192];

/// `clbuf_t`: memory that several buffers may share. The cluster is right behind it.
#[repr(C)]
struct Cluster {
    references: AtomicU16,
    memory: *mut c_void,
    size: u16,
}

/// `pkbuf_t`: a piece of a packet.
#[repr(C)]
pub struct Packet {
    next: *mut Packet,
    cluster: *mut Cluster,
    payload: *mut c_void,
    total_length: u16,
    length: u16,
    flags: u8,
}

/// A packet of so many bytes, with room before it.
#[unsafe(no_mangle)]
pub extern "C" fn pkbuf_alloc(headroom: u16, length: u16) -> *mut Packet {
    let Some(size) = SIZES.into_iter().find(|size| length <= *size) else {
        return null_mut();
    };
    if headroom > HEADROOM {
        return null_mut();
    }
    let size = size + HEADROOM;
    let cluster = core_malloc(size_of::<Cluster>() + usize::from(size)).cast::<Cluster>();
    let packet = core_malloc(size_of::<Packet>()).cast::<Packet>();
    if cluster.is_null() || packet.is_null() {
        // SAFETY: both are null or of libc.
        unsafe {
            libc::free(cluster.cast());
            libc::free(packet.cast());
        }
        return null_mut();
    }
    let room = usize::from(headroom).next_multiple_of(size_of::<usize>());
    // SAFETY: both are new, large enough and aligned as libc does it for anything; the cluster's memory is behind its head, and `room` is at
    // most 128, which fits into it with `length` behind it.
    unsafe {
        let memory = cluster.add(1).cast::<c_void>();
        cluster.write(Cluster {
            references: AtomicU16::new(1),
            memory,
            size,
        });
        packet.write(Packet {
            next: null_mut(),
            cluster,
            payload: memory.byte_add(room),
            total_length: length,
            length,
            flags: 0,
        });
    }
    packet
}

/// Gives back a packet, all pieces of it.
///
/// # Safety
///
/// `packet` is null, or of this family and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pkbuf_free(packet: *mut Packet) {
    let mut piece = packet;
    while !piece.is_null() {
        // SAFETY: promised by the caller; each piece has a cluster, which the last of its users gives back.
        unsafe {
            let Packet { next, cluster, .. } = piece.read();
            if (*cluster).references.fetch_sub(1, Ordering::AcqRel) == 1 {
                libc::free(cluster.cast());
            }
            libc::free(piece.cast());
            piece = next;
        }
    }
}

/// The same packet once more, in the same memory.
///
/// # Safety
///
/// `packet` is null or of this family.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pkbuf_copy(packet: *mut Packet) -> *mut Packet {
    let (mut first, mut last): (*mut Packet, *mut Packet) = (null_mut(), null_mut());
    let mut piece = packet;
    while !piece.is_null() {
        let copy = core_malloc(size_of::<Packet>()).cast::<Packet>();
        if copy.is_null() {
            // SAFETY: what was copied so far is a packet of this family.
            unsafe { pkbuf_free(first) };
            return null_mut();
        }
        // SAFETY: `piece` is one by the caller's promise, `copy` is new and as large, and `last` is null or the one before it.
        unsafe {
            let mut same = piece.read();
            (*same.cluster).references.fetch_add(1, Ordering::AcqRel);
            piece = std::mem::replace(&mut same.next, null_mut());
            copy.write(same);
            if last.is_null() {
                first = copy;
            } else {
                (*last).next = copy;
            }
        }
        last = copy;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_outlives_the_packet() {
        let packet = pkbuf_alloc(20, 300);
        // SAFETY: the packet is new, has 300 bytes, and each of the two is given back once.
        unsafe {
            let Packet {
                payload,
                cluster,
                length,
                total_length,
                ..
            } = packet.read();
            let offset = payload.byte_offset_from((*cluster).memory);
            assert_eq!(
                (offset, length, total_length, (*cluster).size),
                (24, 300, 300, 640)
            );
            payload.cast::<u8>().write_bytes(7, 300);
            let copy = pkbuf_copy(packet);
            pkbuf_free(packet);
            let Packet { payload, cluster, .. } = copy.read();
            assert_eq!((*cluster).references.load(Ordering::Relaxed), 1);
            assert_eq!(payload.cast::<u8>().add(299).read(), 7);
            pkbuf_free(copy);
            pkbuf_free(null_mut());
        }
    }

    #[test]
    fn what_the_original_refuses_is_refused() {
        assert!(pkbuf_alloc(129, 1).is_null());
        assert!(pkbuf_alloc(0, 8193).is_null());
    }

    #[test]
    fn structures_are_as_the_original_has_them() {
        assert_eq!((size_of::<Cluster>(), size_of::<Packet>()), (24, 32));
    }
}
