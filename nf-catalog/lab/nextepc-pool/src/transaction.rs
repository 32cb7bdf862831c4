//! Requests of GTPv2-C: one that is answered keeps its place (of 64) shorter than one that is not.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::OnceLock;

use crate::next;

/// The variable that says for how many ms.
const HOLDING_VARIABLE: &str = "NEXTEPC_HOLDING_MS";
/// Three times three seconds, as the original has it for all (`GTP_T3_DUPLICATED_DURATION`).
const ORIGINAL_MS: c_uint = 9000;
/// `GTP_REMOTE_ORIGINATOR`: the other has asked.
const REMOTE: u8 = 1;
/// The request was read, and the answer is written.
const ANSWERED: c_int = 2;

/// `gtp_xact_t` (lib/gtp/gtp_xact.h), as far as is needed here.
#[repr(C)]
pub struct Transaction {
    neighbours: [*mut c_void; 2],
    index: INDEX,
    origin: u8,
    number: u32,
    node: *mut c_void,
    step: c_int,
    messages: [Message; 3],
    response_timer: usize,
    response_count: u8,
    holding_timer: usize,
}

/// `index_t`.
#[expect(clippy::upper_case_acronyms, reason = "it is another's type")]
type INDEX = u32;

#[repr(C)]
struct Message {
    kind: u8,
    packet: *mut c_void,
}

type Commit = unsafe extern "C" fn(*mut Transaction) -> c_int;
type SetDuration = unsafe extern "C" fn(usize, c_uint) -> c_int;
type Start = unsafe extern "C" fn(usize) -> c_int;

/// Sends what is due in a transaction. If it is the answer, its place is free after the time that was told.
///
/// # Safety
///
/// As the original: `transaction` is null or one of libgtp.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gtp_xact_commit(transaction: *mut Transaction) -> c_int {
    let Some(original) = next(c"gtp_xact_commit") else {
        return -1;
    };
    // SAFETY: the caller has promised a transaction, whose layout is that of nextepc 0.3.10, and the functions have these signatures there.
    unsafe {
        if let Some(transaction) = transaction.as_ref() {
            shorten(transaction);
        }
        let commit: Commit = std::mem::transmute(original);
        commit(transaction)
    }
}

/// # Safety
///
/// The transaction is one of libgtp: its timer is 0 or one of libcore.
unsafe fn shorten(transaction: &Transaction) {
    let answers = transaction.origin == REMOTE && transaction.step == ANSWERED;
    if !answers || transaction.holding_timer == 0 {
        return;
    }
    let (Some(told_ms), Some(set), Some(start)) = (holding_ms(), next(c"tm_set_duration"), next(c"tm_start"))
    else {
        return;
    };
    // SAFETY: both functions of libcore have these signatures (core_timer.h), and take a timer that lives.
    unsafe {
        let set: SetDuration = std::mem::transmute(set);
        let start: Start = std::mem::transmute(start);
        set(transaction.holding_timer, told_ms);
        start(transaction.holding_timer);
    }
}

fn holding_ms() -> Option<c_uint> {
    static TOLD: OnceLock<Option<c_uint>> = OnceLock::new();
    *TOLD.get_or_init(|| shorter(std::env::var(HOLDING_VARIABLE).ok().as_deref()))
}

fn shorter(told: Option<&str>) -> Option<c_uint> {
    told?.parse().ok().filter(|ms| (1..ORIGINAL_MS).contains(ms))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_variable_shortens_and_never_lengthens() {
        assert_eq!(shorter(Some("400")), Some(400));
        for none in [None, Some(""), Some("0"), Some("x"), Some("9000")] {
            assert_eq!(shorter(none), None);
        }
    }

    #[test]
    fn the_structure_is_as_the_original_has_it() {
        let offsets = [
            offset_of!(Transaction, origin),
            offset_of!(Transaction, step),
            offset_of!(Transaction, holding_timer),
        ];
        assert_eq!(offsets, [20, 40, 112]);
    }
}
