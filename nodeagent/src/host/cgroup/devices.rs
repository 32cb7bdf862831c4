//! Which devices a container may use, in cgroup v2: a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` at its group
//! (admin-guide/cgroup-v2.rst, "Device controller"; `bpf_cgroup_dev_ctx` of `linux/bpf.h`). In v1 libcontainer writes `devices.allow`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

use super::tree::below;
use super::{CgroupError, Cgroups, Hierarchy};

/// Character devices that do no harm, as the default of runc has them: null, zero, full, random, urandom, tty, ptmx, terminals.
const USUAL: [Device; 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];
/// `/dev/net/tun`.
const TUN: Device = (10, Some(200));

/// Major number, minor number; `None`: every minor.
type Device = (i32, Option<i32>);

impl Cgroups {
    /// Lets the processes of a container's group use the usual devices only, and `/dev/net/tun` if they may. Its group exists; it may
    /// be guarded already. Nothing to do in v1.
    pub fn guard_devices(&self, pod: &str, container: &str, tun: bool) -> Result<(), CgroupError> {
        let Hierarchy::V2 { point, .. } = &self.hierarchy else {
            return Ok(());
        };
        let path = below(point, &self.container_path(pod, container));
        let guarded = File::open(&path).and_then(|dir| guard(dir.as_fd(), tun));
        guarded.map_err(|source| CgroupError::Io {
            operation: "guard the devices of".to_owned(),
            path,
            source,
        })
    }
}

/// Attaches the program to a group of cgroup v2, once.
pub(super) fn guard(group: BorrowedFd<'_>, tun: bool) -> io::Result<()> {
    if attached(group)? > 0 {
        return Ok(());
    }
    let devices: Vec<Device> = USUAL.into_iter().chain(tun.then_some(TUN)).collect();
    let program = load(&program(&devices))?;
    let mut attach = Attach {
        target_fd: fd_of(group),
        attach_bpf_fd: fd_of(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        // Those of groups above, for example of a service manager, stay in force.
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attach).map(|_| ())
}

/// One instruction (`struct bpf_insn`): operation, registers (destination in the low half), jump, operand.
type Instruction = (u8, u8, i16, i32);

/// Returns 1 for what is allowed. Making a node is: nobody can open it.
fn program(devices: &[Device]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const MOVE_NUMBER: u8 = 0xb7;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP: u8 = 0x05;
    const JUMP_IF_IS: u8 = 0x15;
    const JUMP_IF_IS_NOT: u8 = 0x55;
    const EXIT: u8 = 0x95;
    const MKNOD: i32 = 1;
    const CHARACTER: i32 = 2;
    let pair = |to: u8, from: u8| to | (from << 4);
    let mut code = vec![
        (LOAD_WORD, pair(2, 1), 0, 0),
        (LOAD_WORD, pair(4, 1), 4, 0),
        (LOAD_WORD, pair(5, 1), 8, 0),
        (MOVE, pair(3, 2), 0, 0),
        (AND, 3, 0, 0xffff),
        (SHIFT_RIGHT, 2, 0, 16),
    ];
    // The two ends come last: deny, then allow.
    let tests = 2 + 2 * devices.len();
    let end_of = |line: usize, allow: bool| {
        let ahead = tests - line - 1 + if allow { 2 } else { 0 };
        i16::try_from(ahead).unwrap_or(i16::MAX)
    };
    code.push((JUMP_IF_IS, 2, end_of(0, true), MKNOD));
    code.push((JUMP_IF_IS_NOT, 3, end_of(1, false), CHARACTER));
    for (number, (major, minor)) in devices.iter().enumerate() {
        let line = 2 + 2 * number;
        code.push((JUMP_IF_IS_NOT, 4, 1, *major));
        code.push(match minor {
            Some(minor) => (JUMP_IF_IS, 5, end_of(line + 1, true), *minor),
            None => (JUMP, 0, end_of(line + 1, true), 0),
        });
    }
    code.extend([(MOVE_NUMBER, 0, 0, 0), (EXIT, 0, 0, 0)]);
    code.extend([(MOVE_NUMBER, 0, 0, 1), (EXIT, 0, 0, 0)]);
    code
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// For `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// For `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut bytes = Vec::with_capacity(code.len() * 8);
    for (operation, registers, jump, operand) in code {
        bytes.extend([*operation, *registers]);
        bytes.extend(jump.to_le_bytes());
        bytes.extend(operand.to_le_bytes());
    }
    let license = c"Apache-2.0";
    let mut load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: bytes.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &mut load)?;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How many programs are attached to this very group.
fn attached(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut query = Query {
        target_fd: fd_of(group),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        prog_cnt: 0,
        padding: 0,
    };
    match bpf(BPF_PROG_QUERY, &mut query) {
        // There are more than fit into the list of none.
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => Ok(query.prog_cnt.max(1)),
        Err(e) => Err(e),
        Ok(_) => Ok(query.prog_cnt),
    }
}

fn fd_of(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes at most the size that is said, and what the addresses in it point to lives in the caller.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns.
    fn run(devices: &[Device], kind: u32, access: u32, major: i32, minor: i32) -> i32 {
        let code = program(devices);
        let (mut at, mut r) = (0, [0i64; 11]);
        loop {
            let (operation, registers, jump, operand) = code[at];
            let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
            at += 1;
            let ahead = usize::try_from(jump).unwrap();
            match operation {
                0x61 => r[to] = i64::from([(access << 16 | kind) as i32, major, minor][ahead / 4]),
                0xbf => r[to] = r[from],
                0xb7 => r[to] = i64::from(operand),
                0x57 => r[to] &= i64::from(operand),
                0x77 => r[to] >>= operand,
                0x05 => at += ahead,
                0x15 if r[to] == i64::from(operand) => at += ahead,
                0x55 if r[to] != i64::from(operand) => at += ahead,
                0x15 | 0x55 => {}
                0x95 => return r[0] as i32,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_usual_devices_and_no_other() {
        let (block, character, mknod, read, write) = (1, 2, 1, 2, 4);
        for (major, minor) in [(1, 3), (1, 9), (5, 0), (5, 2), (136, 0), (136, 77)] {
            assert_eq!(
                run(&USUAL, character, read | write, major, minor),
                1,
                "{major}:{minor}"
            );
            assert_eq!(run(&USUAL, block, read, major, minor), 0);
        }
        for (major, minor) in [(1, 1), (1, 2), (1, 4), (1, 11), (10, 200), (5, 1), (254, 0)] {
            assert_eq!(run(&USUAL, character, read, major, minor), 0, "{major}:{minor}");
            assert_eq!(run(&USUAL, character, read | mknod, major, minor), 0);
            assert_eq!(run(&USUAL, block, mknod, major, minor), 1);
        }
        let with_tun = [USUAL.to_vec(), vec![TUN]].concat();
        assert_eq!(run(&with_tun, character, read | write, 10, 200), 1);
    }
}
