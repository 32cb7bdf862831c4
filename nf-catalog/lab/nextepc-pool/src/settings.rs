//! Settings of IPv6 that a container without privileges may not write: sgsnemu ends where it cannot tell its tun to take no router
//! advertisements, though pods have no IPv6 that could bring any.

use std::ffi::{CStr, c_char, c_void};

use crate::next;

const PLACE: &[u8] = b"/proc/sys/net/ipv6/conf/";

type Open = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_void;

/// libc's `fopen`; what cannot be written below that place goes nowhere.
///
/// # Safety
///
/// As libc's: both are strings that end with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut c_void {
    let Some(found) = next(c"fopen") else {
        return std::ptr::null_mut();
    };
    // SAFETY: libc's fopen has this signature, and the caller promises the strings.
    unsafe {
        let open: Open = std::mem::transmute(found);
        let file = open(path, mode);
        let is_setting = CStr::from_ptr(path).to_bytes().starts_with(PLACE);
        if file.is_null() && is_setting && CStr::from_ptr(mode).to_bytes().starts_with(b"w") {
            return open(c"/dev/null".as_ptr(), mode);
        }
        file
    }
}

/// The same under its name for large files, which are no others on 64 bits.
///
/// # Safety
///
/// As `fopen`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller promises the same.
    unsafe { fopen(path, mode) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(path: &CStr, mode: &CStr) -> bool {
        // SAFETY: both are strings, and what was opened is closed once.
        unsafe {
            let file = fopen64(path.as_ptr(), mode.as_ptr());
            let opened = !file.is_null();
            if opened {
                libc::fclose(file.cast());
            }
            opened
        }
    }

    #[test]
    fn settings_of_no_device_go_nowhere() {
        assert!(opens(c"/proc/sys/net/ipv6/conf/no-such-device/accept_ra", c"w"));
        assert!(!opens(c"/proc/sys/net/ipv6/conf/no-such-device/accept_ra", c"r"));
        assert!(!opens(c"/proc/sys/net/ipv4/conf/no-such-device/rp_filter", c"w"));
        assert!(opens(c"/proc/version", c"r"));
    }
}
