//! The tun: a link whose other end is a file (linux/if_tun.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::net::if_::if_nametoindex;

/// `_IOW('T', 202, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Opens a tun of that name, which is made if it is not there; its file, which does not block, and the number of the link. Each read
/// and write is one packet of IP, without anything before it.
pub fn open(name: &str) -> io::Result<(File, u32)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: all bytes zero is a value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::other("a link's name has 1 to 15 characters"));
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call is over, and the file is open.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((file, if_nametoindex(name)?))
}

/// Packets that the kernel has thrown away since nobody read them in time.
pub fn dropped(name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/statistics/tx_dropped"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
