//! For `LD_PRELOAD` before nextepc's programs: their small objects come from libc and not from 256 buffers, their event queue holds
//! more, the time for which they keep answered requests can be set, and their sockets hold more packets. The programs stay as they are.
//! See the README.
//!
//! Each function stands in the place of the one of the same name in nextepc's `libcore` (lib/core/include of nextepc 0.3.10) or in libc,
//! with its signature and its promises.

mod memory;
mod receive;

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// Events that wait; 16 in the original.
const EVENTS: c_int = 1024;
/// `sizeof(event_t)`: an event and eight parameters, each of a pointer's size.
const EVENT_BYTES: c_int = 9 * size_of::<usize>() as c_int;
/// How long an answered request is kept in the original, in ms; no other timer of SGW and PGW has that length.
const HOLDING_MS: c_uint = 9000;
/// The variable that says how long instead.
const HOLDING_VARIABLE: &str = "NEXTEPC_HOLDING_MS";

type MsgqCreate = unsafe extern "C" fn(c_int, c_int, c_int) -> usize;
type TimerCreate = unsafe extern "C" fn(*mut c_void, c_int, c_uint, usize) -> usize;

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

/// A timer; the one that keeps an answered request is as long as the variable says.
///
/// # Safety
///
/// As the original: `service` is a timer service of libcore.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn event_timer_create(
    service: *mut c_void,
    kind: c_int,
    duration_ms: c_uint,
    event: usize,
) -> usize {
    let Some(found) = next(c"event_timer_create") else {
        return 0;
    };
    // SAFETY: libcore's event_timer_create has this signature (core_event.h); the caller has promised the rest.
    unsafe {
        let create: TimerCreate = std::mem::transmute(found);
        create(service, kind, duration(duration_ms), event)
    }
}

fn duration(asked_ms: c_uint) -> c_uint {
    static HOLDING: OnceLock<c_uint> = OnceLock::new();
    match asked_ms {
        HOLDING_MS => *HOLDING.get_or_init(|| holding(std::env::var(HOLDING_VARIABLE).ok().as_deref())),
        other => other,
    }
}

fn holding(told: Option<&str>) -> c_uint {
    let told = told.and_then(|text| text.parse().ok());
    told.filter(|ms| (1..=HOLDING_MS).contains(ms))
        .unwrap_or(HOLDING_MS)
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
    fn the_variable_shortens_and_never_lengthens() {
        assert_eq!(holding(Some("200")), 200);
        for none in [None, Some(""), Some("0"), Some("x"), Some("9001")] {
            assert_eq!(holding(none), HOLDING_MS);
        }
        assert_eq!(duration(3000), 3000, "other timers are as they were");
    }

    #[test]
    fn without_libcore_there_is_no_queue() {
        assert_eq!(event_create(0), 0);
    }
}
