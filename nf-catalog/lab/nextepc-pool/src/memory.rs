//! The `core_malloc` family of nextepc's libcore (core_pkbuf.h), by libc's.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

/// `CORE_OK`.
const DONE: c_int = 0;

/// Memory of that size.
#[unsafe(no_mangle)]
pub extern "C" fn core_malloc(size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(size) }
}

/// The same, all zeros.
#[unsafe(no_mangle)]
pub extern "C" fn core_calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for; calloc refuses a product that overflows.
    unsafe { libc::calloc(count, size) }
}

/// Another size.
///
/// # Safety
///
/// `old` is null or of this family.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn core_realloc(old: *mut c_void, size: usize) -> *mut c_void {
    if size == 0 {
        // SAFETY: promised by the caller.
        unsafe { libc::free(old) };
        return null_mut();
    }
    // SAFETY: promised by the caller.
    unsafe { libc::realloc(old, size) }
}

/// Gives it back.
///
/// # Safety
///
/// `old` is null or of this family, and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn core_free(old: *mut c_void) -> c_int {
    // SAFETY: promised by the caller.
    unsafe { libc::free(old) };
    DONE
}

/// A copy of so many bytes.
///
/// # Safety
///
/// `bytes` is null or has that many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn core_memdup(bytes: *const c_void, size: usize) -> *mut c_void {
    if bytes.is_null() {
        return null_mut();
    }
    let copy = core_malloc(size);
    if !copy.is_null() {
        // SAFETY: the caller has promised `size` bytes at `bytes`, and `copy` is new and has as many.
        unsafe { std::ptr::copy_nonoverlapping(bytes.cast::<u8>(), copy.cast::<u8>(), size) };
    }
    copy
}

/// A copy of a text.
///
/// # Safety
///
/// `text` is null or ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn core_strdup(text: *const c_char) -> *mut c_char {
    if text.is_null() {
        return null_mut();
    }
    // SAFETY: promised by the caller.
    unsafe { libc::strdup(text) }
}

/// A copy of a text's first bytes.
///
/// # Safety
///
/// `text` is null, or ends with a zero byte, or has that many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn core_strndup(text: *const c_char, most: usize) -> *mut c_char {
    if text.is_null() {
        return null_mut();
    }
    // SAFETY: promised by the caller.
    unsafe { libc::strndup(text, most) }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn copies_are_copies() {
        // SAFETY: the texts end with a zero byte, and each copy is given back once.
        unsafe {
            let copy = core_strndup(c"abcdef".as_ptr(), 3);
            assert_eq!(CStr::from_ptr(copy), c"abc");
            let longer = core_realloc(copy.cast(), 100).cast::<c_char>();
            assert_eq!(CStr::from_ptr(longer), c"abc");
            assert_eq!(core_free(longer.cast()), 0);
            let copy = core_memdup(c"xyz".as_ptr().cast(), 4).cast::<c_char>();
            assert_eq!(CStr::from_ptr(copy), c"xyz");
            assert!(core_realloc(copy.cast(), 0).is_null());
            assert!(core_strdup(std::ptr::null()).is_null());
            let zeros = core_calloc(4, 8).cast::<u64>();
            assert_eq!(*zeros.add(3), 0);
            core_free(zeros.cast());
        }
    }
}
