//! What a process has from the one that started it, taken away: containers start as on a fresh machine, whoever started the agent,
//! and however (taskset, nice, nohup, numactl, a shell with limits of its own).

use std::fs;
use std::io;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};

use crate::guard;

/// Most CPUs of a Linux (`CONFIG_NR_CPUS` up to 8192).
const CPUS: usize = 8192;
/// Open files that a program may have before it asks for more: what systemd gives, and what select(2) can watch.
const OPEN_FILES: u64 = 1024;
/// `MPOL_DEFAULT` of `linux/mempolicy.h`.
const MPOL_DEFAULT: libc::c_long = 0;
/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`; priority 0 is "none", which follows nice.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
/// Which mappings a core dump has by default (`core(5)`).
const CORE_DUMP_FILTER: &str = "0x33";

/// Soft limits of a fresh process (`INIT_RLIMITS` of the kernel, and systemd for open files); `None`: as high as may be.
const SOFT: [(libc::__rlimit_resource_t, Option<u64>); 15] = [
    (libc::RLIMIT_NOFILE, Some(OPEN_FILES)),
    (libc::RLIMIT_STACK, Some(8 << 20)),
    (libc::RLIMIT_CORE, Some(0)),
    (libc::RLIMIT_MEMLOCK, Some(8 << 20)),
    (libc::RLIMIT_MSGQUEUE, Some(819_200)),
    (libc::RLIMIT_NICE, Some(0)),
    (libc::RLIMIT_RTPRIO, Some(0)),
    (libc::RLIMIT_CPU, None),
    (libc::RLIMIT_FSIZE, None),
    (libc::RLIMIT_DATA, None),
    (libc::RLIMIT_RSS, None),
    (libc::RLIMIT_NPROC, None),
    (libc::RLIMIT_AS, None),
    (libc::RLIMIT_LOCKS, None),
    (libc::RLIMIT_SIGPENDING, None),
];
/// What is counted for all processes of a user, whatever container they are in (`inc_rlimit_get_ucounts`, kernel/ucount.c): timers and
/// queued signals, message queues, processes. Containers have half of it, so that the host's processes of that user have the rest.
const OF_USER: [libc::__rlimit_resource_t; 3] =
    [libc::RLIMIT_SIGPENDING, libc::RLIMIT_MSGQUEUE, libc::RLIMIT_NPROC];
/// The first process of the host.
const INIT: libc::pid_t = 1;

/// Groups, scheduling, memory policy, limits, umask and so on of this process; those that it makes have them too. `open_files` is the soft
/// limit on open files, if not the usual. Takes privileges: call it before they are given up, and before the cgroup is joined.
pub(crate) fn process(open_files: Option<u64>, oom_score: i32) -> io::Result<()> {
    if guard::off("fresh-process") {
        return Ok(());
    }
    nix::unistd::setgroups(&[])?;
    scheduling()?;
    memory_policy()?;
    limits(open_files)?;
    umask(Mode::from_bits_truncate(0o022));
    // SAFETY: takes numbers only; 0 is the default domain without flags (`personality(2)`), and the default slack of a thread.
    unsafe {
        libc::personality(0);
        libc::prctl(libc::PR_SET_TIMERSLACK, 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECUREBITS, 0);
    }
    oom_score_adj(oom_score);
    let _ = fs::write("/proc/self/coredump_filter", CORE_DUMP_FILTER);
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        // SAFETY: this process has one thread.
        unsafe { std::env::remove_var(name) };
    }
    Ok(())
}

/// How soon this process and those that it makes are killed where memory runs out. Only whoever may raise limits can go below what
/// it was started with, which is 0 on most hosts: else it goes as low as it may.
pub(crate) fn oom_score_adj(value: i32) {
    let write = |value: i32| fs::write("/proc/self/oom_score_adj", value.to_string());
    let _ = write(value).or_else(|_| write(value.max(0)));
}

/// Every CPU, the normal class, nice 0, no I/O priority. What is allowed of the CPUs is the cgroup's affair.
fn scheduling() -> io::Result<()> {
    let all = [u8::MAX; CPUS / 8];
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: the mask is as long as is said and only read; the kernel passes over CPUs that there are not. The rest takes numbers,
    // and a structure that lives during the call.
    let done = unsafe {
        [
            libc::sched_setaffinity(0, all.len(), all.as_ptr().cast()),
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal),
            libc::setpriority(libc::PRIO_PROCESS, 0, 0),
            libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0) as libc::c_int,
        ]
    };
    if done.contains(&-1) {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn memory_policy() -> io::Result<()> {
    // SAFETY: the default policy has no mask of nodes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            MPOL_DEFAULT,
            std::ptr::null::<libc::c_ulong>(),
            0,
        )
    };
    match done {
        -1 if io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) => {
            Err(io::Error::last_os_error())
        }
        _ => Ok(()),
    }
}

fn limits(open_files: Option<u64>) -> io::Result<()> {
    for (resource, soft) in SOFT {
        let asked = open_files.filter(|_| resource == libc::RLIMIT_NOFILE);
        let soft = asked.or(soft).unwrap_or(libc::RLIM_INFINITY);
        // The hard limit becomes that of the host's first process where this one may raise it; else its own stays.
        let own = limit(0, resource, None)?.rlim_max;
        let host = limit(INIT, resource, None).map_or(own, |of_host| share(resource, of_host.rlim_max));
        let fit = |hard: u64| libc::rlimit {
            rlim_cur: soft.min(hard),
            rlim_max: hard,
        };
        limit(0, resource, Some(fit(host))).or_else(|_| limit(0, resource, Some(fit(own))))?;
    }
    Ok(())
}

fn share(resource: libc::__rlimit_resource_t, of_host: u64) -> u64 {
    match OF_USER.contains(&resource) && of_host != libc::RLIM_INFINITY {
        true => of_host / 2,
        false => of_host,
    }
}

/// The same for this process itself: what a user namespace counts is counted for whoever made it as well, within the limits that the
/// maker has when he makes it (`create_user_ns`, kernel/user_namespace.c).
pub(crate) fn leave_half_to_host() {
    for resource in OF_USER {
        if let Ok(of_host) = limit(INIT, resource, None) {
            let half = share(resource, of_host.rlim_max);
            let (rlim_cur, rlim_max) = (half.min(of_host.rlim_cur), half);
            // Who may not lower or raise it runs with what it has.
            let _ = limit(0, resource, Some(libc::rlimit { rlim_cur, rlim_max }));
        }
    }
}

/// Reads, and sets if there is something to set, a limit of a process, 0 for this one (`prlimit(2)`).
fn limit(
    pid: i32,
    resource: libc::__rlimit_resource_t,
    new: Option<libc::rlimit>,
) -> io::Result<libc::rlimit> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both structures live during the call; no new limit is null.
    match unsafe { libc::prlimit(pid, resource, new, &raw mut old) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// No signal blocked or ignored: both survive an exec.
pub(crate) fn signals() -> io::Result<()> {
    if guard::off("fresh-process") {
        return Ok(());
    }
    // `struct sigaction` of the kernel, all zero: the default, without flags. The C library keeps two signals to itself and would
    // not reset them.
    let default = [0_u64; 4];
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: the action lives during the call; a mask is of 8 bytes. EINVAL: SIGKILL and SIGSTOP.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            );
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Closes all but stdin, stdout and stderr. Call it first: nothing that is open may be in use.
pub fn descriptors() {
    // SAFETY: at the start of a program nobody owns a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}
