//! For `LD_PRELOAD` before nextepc's programs: packets and small objects come from libc and not from 256 buffers, their event queue holds
//! more, the time for which they keep answered requests can be set, and their sockets hold more packets; for sgsnemu, that it needs no
//! privileges. The programs stay as they are. See the README.
//!
//! Each function stands in the place of the one of the same name in nextepc's `libcore` and `libgtp` (nextepc 0.3.10) or in libc,
//! with its signature and its promises.

mod memory;
mod packet;
mod receive;
mod settings;
mod transaction;

use std::ffi::{CStr, c_int, c_void};

/// Events that wait; 16 in the original.
const EVENTS: c_int = 1024;
/// `sizeof(event_t)`: an event and eight parameters, each of a pointer's size.
const EVENT_BYTES: c_int = 9 * size_of::<usize>() as c_int;

type MsgqCreate = unsafe extern "C" fn(c_int, c_int, c_int) -> usize;

/// A queue of events that more timers may end in at once.
#[unsafe(no_mangle)]
pub extern "C" fn event_create(options: c_int) -> usize {
    let Some(found) = next(c"msgq_create") else {
        return 0;
    };
    // SAFETY: libcore's msgq_create has this signature (core_msgq.h), and takes any three numbers.
    unsafe {
        let create: MsgqCreate = std::mem::transmute(found);
        create(EVENTS, EVENT_BYTES, options)
    }
}

/// The function of this name in the libraries behind this one.
fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero byte, as every CStr, and dlsym only reads it.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_libcore_there_is_no_queue() {
        assert_eq!(event_create(0), 0);
    }
}
