//! Sockets of UDP that hold more than the kernel's default.

use std::ffi::{c_int, c_void};

use crate::next;

/// Bytes, of which the kernel gives as many as it may.
const BYTES: c_int = 4 << 20;

type Socket = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;

/// libc's `socket`, with a larger buffer for what comes, if it is one of datagrams.
#[unsafe(no_mangle)]
pub extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let Some(found) = next(c"socket") else {
        return -1;
    };
    // SAFETY: libc's socket has this signature, and takes any three numbers.
    let made = unsafe {
        let make: Socket = std::mem::transmute(found);
        make(domain, kind, protocol)
    };
    let without_flags = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    if made >= 0 && domain == libc::AF_INET && without_flags == libc::SOCK_DGRAM {
        let bytes: *const c_int = &BYTES;
        let length = size_of::<c_int>() as libc::socklen_t;
        // SAFETY: `bytes` points to a number of that length. What is refused changes nothing.
        unsafe {
            libc::setsockopt(
                made,
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                bytes.cast::<c_void>(),
                length,
            )
        };
    }
    made
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use super::*;

    fn buffer(kind: c_int) -> c_int {
        let made = socket(libc::AF_INET, kind, 0);
        assert!(made >= 0);
        // SAFETY: it was just made, and nobody else has it.
        let made = unsafe { OwnedFd::from_raw_fd(made) };
        let (mut bytes, mut length): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
        let to: *mut c_int = &mut bytes;
        // SAFETY: `to` points to a number of that length.
        let done = unsafe {
            libc::getsockopt(
                made.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                to.cast(),
                &mut length,
            )
        };
        assert_eq!(done, 0);
        bytes
    }

    #[test]
    fn datagrams_have_room() {
        let most: c_int = std::fs::read_to_string("/proc/sys/net/core/rmem_max")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(BYTES);
        // The kernel doubles it for its own needs (socket(7)).
        assert_eq!(buffer(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC), 2 * BYTES.min(most));
    }
}
