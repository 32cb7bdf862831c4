//! The agent's binary as a file in memory that nobody can change.
//!
//! A process that enters a container can be seen from inside, and with it the file it runs: `/proc/PID/exe` opens the host's
//! binary, to be written, or given another mode or owner (CVE-2019-5736). So agent, shim and exec run from a sealed memfd:
//! `memfd_create(2)`, `F_ADD_SEALS` of `fcntl(2)`. There is one for each content of the binary on the machine: whoever starts
//! looks for a process that runs from one with the same content, and runs from that; so a new agent shares the pages of the shims
//! of the one before. Nothing lives longer than the processes that use it.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{
    Gid, MemfdFlags, Mode, SealFlags, Uid, fchmod, fchown, fcntl_add_seals, fcntl_get_seals, memfd_create,
};
use rustix::io::Errno;

use crate::guard;

/// What `ps` shows of shims and execs.
const NAME: &str = "gantry-nodeagent";
/// What `/proc/PID/exe` of a process that runs from the copy is a link to.
const LINK: &str = "/memfd:gantry-nodeagent (deleted)";
const OWN: &str = "/proc/self/exe";
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);
/// `F_SEAL_EXEC` of `linux/fcntl.h` (since Linux 6.3): the bits that let it be executed stay.
const SEAL_EXEC: SealFlags = SealFlags::from_bits_retain(0x20);
/// It is no secret; nobody writes.
const MODE: Mode = Mode::from_raw_mode(0o555);
/// Piece in which contents are copied and compared.
const CHUNK_BYTES: usize = 1 << 20;

/// A copy is sealed so often, if the kernel says that it is busy, with a pause between.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Goes on as the sealed copy of this program: same process, same arguments. Returns if it runs from one already. `name` is
/// what the process is called (`comm`, 15 bytes of it).
pub fn enter(name: &str) -> io::Result<()> {
    if guard::off("sealed-binary") {
        return Ok(());
    }
    let own = File::open(OWN)?;
    if is_sealed(&own) {
        let name = CString::new(name)?;
        return Ok(rustix::thread::set_name(&name)?);
    }
    // Two that start at the same time would make two. Containers have a /proc of their own; the lock ends with the exec.
    let _one_at_a_time = Flock::lock(File::open("/proc")?, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
    let size = loaded_bytes(&own)?;
    let copy = match find(&own, size) {
        Some(copy) => copy,
        None => make(&own, size)?,
    };
    let mut args = vec![CString::new(fs::read_link(OWN)?.into_os_string().into_vec())?];
    for arg in std::env::args_os().skip(1) {
        args.push(CString::new(arg.into_vec())?);
    }
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    nix::unistd::execv(&path, &args)?;
    Ok(())
}

/// Where this program is installed, also when it runs from its copy.
pub fn installed() -> PathBuf {
    let started_as = std::env::args_os().next().unwrap_or_default();
    if File::open(OWN).is_ok_and(|own| is_sealed(&own)) {
        return started_as.into();
    }
    std::env::current_exe().unwrap_or_default()
}

/// A command of `executable`, which is a `gantry-nodeagent` binary; if it is a sealed copy, mode and owner are as they should be
/// (kernels before 6.3 let a container's root change them).
pub(crate) fn command(executable: &Path) -> Command {
    if let Ok(file) = File::open(executable)
        && is_sealed(&file)
    {
        // A failure shows when it is executed.
        let _ = restore(&file);
    }
    let mut command = Command::new(executable);
    command.arg0(NAME);
    command
}

fn is_sealed(file: &File) -> bool {
    // EINVAL: a file that cannot have seals.
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

fn restore(copy: &File) -> io::Result<()> {
    fchown(copy, Some(Uid::ROOT), Some(Gid::ROOT))?;
    Ok(fchmod(copy, MODE)?)
}

/// A copy that some process runs from. Its content counts, not its name: any process may call a file in memory so.
fn find(own: &File, size: u64) -> Option<OwnedFd> {
    let runs = |entry: &fs::DirEntry| {
        entry.file_name().as_bytes().iter().all(u8::is_ascii_digit)
            && fs::read_link(entry.path().join("exe")).is_ok_and(|link| link.as_os_str() == OsStr::new(LINK))
    };
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter(runs)
        .filter_map(|entry| File::open(entry.path().join("exe")).ok())
        .find(|copy| is_sealed(copy) && same(own, copy, size).unwrap_or(false) && restore(copy).is_ok())
        .map(OwnedFd::from)
}

fn same(own: &File, copy: &File, size: u64) -> io::Result<bool> {
    if copy.metadata()?.len() != size {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    while at < size {
        let piece = usize::try_from(size - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        own.read_exact_at(&mut ours[..piece], at)?;
        copy.read_exact_at(&mut theirs[..piece], at)?;
        if ours[..piece] != theirs[..piece] {
            return Ok(false);
        }
        at += piece as u64;
    }
    Ok(true)
}

fn make(own: &File, size: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every file in memory can be executed, and there is no flag to say so.
        Err(Errno::INVAL) => memfd_create(NAME, flags),
        made => made,
    };
    let made = made.map_err(|e| {
        let why = format!("no file in memory that can be executed ({e}); vm.memfd_noexec must be below 2");
        io::Error::new(io::Error::from(e).kind(), why)
    })?;
    let mut copy = File::from(made);
    let mut own = own;
    own.rewind()?;
    io::copy(&mut own.take(size), &mut copy)?;
    restore(&copy)?;
    seal(&copy)?;
    // Opened anew: a file that is open for writing cannot be executed.
    Ok(File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?.into())
}

/// The kernel says busy while somebody holds one of the pages, such as whoever moves or ages memory (`mm/memfd.c`): for moments,
/// some of which it waits itself.
fn seal(copy: &File) -> io::Result<()> {
    let mut seals = SEALS | SEAL_EXEC;
    for _ in 0..TRIES {
        match fcntl_add_seals(copy, seals) {
            Err(Errno::INVAL) if seals != SEALS => seals = SEALS,
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            sealed => return Ok(sealed?),
        }
    }
    Ok(fcntl_add_seals(copy, seals)?)
}

/// How much of an ELF file (64 bit, `elf(5)`) the kernel maps: what follows is for debuggers.
fn loaded_bytes(file: &File) -> io::Result<u64> {
    const LOAD: u32 = 1;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "this program is no 64-bit ELF file");
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(wrong());
    }
    let (at, each, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    let mut end = 0;
    for number in 0..u64::from(count) {
        let mut segment = [0; 56];
        file.read_exact_at(&mut segment, at + number * u64::from(each))?;
        if segment[..4] == LOAD.to_le_bytes() {
            end = end.max(u64_at(&segment, 8).saturating_add(u64_at(&segment, 32)));
        }
    }
    if end == 0 || end > file.metadata()?.len() {
        return Err(wrong());
    }
    Ok(end)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes[at..at + 2].try_into().map_or(0, u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_what_is_loaded_and_takes_no_change() {
        let own = File::open(OWN).unwrap();
        let size = loaded_bytes(&own).unwrap();
        let copy = File::from(make(&own, size).unwrap());
        assert!(is_sealed(&copy) && !is_sealed(&own));
        assert!(same(&own, &copy, size).unwrap());
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let written = File::options()
            .write(true)
            .open(&path)
            .and_then(|f| f.write_at(b"x", 0));
        assert!(written.is_err());
        assert!(File::options().write(true).truncate(true).open(&path).is_err());
        let runs = Command::new(&path).arg("--list").output().unwrap();
        assert!(runs.status.success(), "{runs:?}");
    }

    #[test]
    fn another_content_is_another_file() {
        let own = File::open(OWN).unwrap();
        let other = File::open("/bin/sh").unwrap();
        let size = loaded_bytes(&other).unwrap();
        let copy = File::from(make(&other, size).unwrap());
        assert!(!same(&own, &copy, size).unwrap());
        assert!(!same(&other, &copy, size - 1).unwrap());
    }
}
