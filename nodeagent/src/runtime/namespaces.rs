//! Namespaces that live without a process: bind mounts of nsfs.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use super::ids::IDS;

/// `linux/magic.h`.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// True if a namespace is mounted there (a file without a mount, as after a reboot, is none).
pub fn is_pinned(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type().0 == NSFS_MAGIC)
}

/// Mounts a namespace, a file of `/proc/PID/ns`, at a file that is made for it.
pub fn pin(namespace: &Path, at: &Path) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(at)?;
    Ok(mount(
        Some(namespace),
        at,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?)
}

/// Removes such a mount and its file; both may be gone.
pub fn unpin(path: &Path) -> io::Result<()> {
    while is_pinned(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a user namespace in which the ids from 0 on are `first` and so on of the host, and a network namespace that belongs to it:
/// whoever may configure networks in the one may do so in the other (`user_namespaces(7)`).
pub fn pin_mapped(first: u32, user: &Path, net: &Path) -> io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::SIGCHLD;
    // SAFETY: without a stack of its own the child goes on as after fork(2). It makes system calls only, so it does not matter which locks
    // other threads hold.
    let pid = match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            let mut byte = 0_u8;
            // SAFETY: as above; the byte lives until the process ends. The read ends when whoever made it has closed the other end: so
            // nothing else is kept open here, least of all the other end of another one's pipe.
            unsafe {
                libc::dup2(reader.as_raw_fd(), 0);
                libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
                libc::read(0, (&raw mut byte).cast(), 1);
                libc::_exit(0)
            }
        }
        pid => pid,
    };
    let of_child = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
    let made = (|| {
        let map = format!("0 {first} {IDS}\n");
        fs::write(of_child("uid_map"), &map)?;
        fs::write(of_child("gid_map"), &map)?;
        pin(&of_child("ns/user"), user)?;
        pin(&of_child("ns/net"), net)
    })();
    drop(writer);
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    waitpid(Pid::from_raw(pid), None)?;
    made
}

#[cfg(test)]
mod tests {
    use std::os::linux::fs::MetadataExt;

    use super::*;

    /// They are made beside each other, by threads of one process.
    #[test]
    fn many_at_once_are_made_and_removed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: namespaces need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let paths = |n: u32| ["user", "net"].map(|kind| dir.path().join(kind).join(n.to_string()));
        std::thread::scope(|threads| {
            for n in 0..16 {
                let [user, net] = paths(n);
                threads.spawn(move || pin_mapped(0x7000_0000 + n * IDS, &user, &net).unwrap());
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        for path in (0..16).flat_map(paths) {
            assert!(is_pinned(&path), "{}", path.display());
            seen.insert(fs::metadata(&path).unwrap().st_ino());
            unpin(&path).unwrap();
            unpin(&path).unwrap();
            assert!(!path.exists());
        }
        assert_eq!(seen.len(), 32);
    }
}
