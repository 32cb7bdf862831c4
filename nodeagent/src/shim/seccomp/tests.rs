use std::collections::HashSet;

use oci_spec::runtime::Capability;

use super::*;

/// What the kernel would do with a call: the filters run here, on `struct seccomp_data`.
fn answer(filters: &[Filter], name: &str, arguments: &[u64]) -> u32 {
    let number = table::number(name).unwrap();
    number_answer(filters, number, arguments)
}

fn number_answer(filters: &[Filter], number: i64, arguments: &[u64]) -> u32 {
    const X86_64: u32 = 0xc000_003e;
    let mut data = vec![u32::try_from(number).unwrap(), X86_64, 0, 0];
    for at in 0..6 {
        let value = arguments.get(at).copied().unwrap_or(0);
        data.extend([value as u32, (value >> 32) as u32]);
    }
    filters
        .iter()
        .map(|f| run(&f.0, &data))
        .min_by_key(|a| (*a).cast_signed())
        .unwrap_or(libc::SECCOMP_RET_ALLOW)
}

/// As much of classic BPF as filters are made of.
fn run(program: &[(u16, u8, u8, u32)], data: &[u32]) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let (code, yes, no, k) = program[at];
        at += 1;
        let jump = |test: bool| usize::from(if test { yes } else { no });
        match code {
            0x20 => accumulator = data[k as usize / 4],
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return k,
            other => panic!("{other:#x}"),
        }
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn the_default_lets_programs_run_and_keeps_the_kernel_to_itself() {
    let filters = runtime_default(&HashSet::new()).unwrap();
    for name in [
        "read", "execve", "clone", "socket", "futex", "mmap", "capset", "prctl", "statx",
    ] {
        assert_eq!(answer(&filters, name, &[]), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "bpf",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "userfaultfd",
        "perf_event_open",
        "init_module",
        "kexec_load",
        "reboot",
        "syslog",
        "open_by_handle_at",
        "swapon",
        "pivot_root",
        "mbind",
        "chroot",
        "iopl",
        "quotactl",
        "acct",
    ] {
        assert_eq!(answer(&filters, name, &[]), EPERM, "{name}");
    }
}

#[test]
fn arguments_count_and_new_calls_do_not_exist() {
    let filters = runtime_default(&HashSet::new()).unwrap();
    let user = 0x1000_0000;
    assert_eq!(answer(&filters, "clone", &[user | 17]), EPERM);
    assert_eq!(answer(&filters, "clone", &[0x003d_0f00]), ALLOW, "a thread");
    assert_eq!(answer(&filters, "clone3", &[]), ENOSYS);
    assert_eq!(answer(&filters, "socket", &[40]), EPERM);
    assert_eq!(answer(&filters, "personality", &[0x40000]), EPERM);
    assert_eq!(answer(&filters, "personality", &[0xffff_ffff]), ALLOW);
    assert_eq!(number_answer(&filters, 475, &[]), ENOSYS);
}

#[test]
fn rings_of_packets_are_for_those_that_configure_networks() {
    let usual = runtime_default(&HashSet::from([Capability::NetRaw])).unwrap();
    let admin = runtime_default(&HashSet::from([Capability::NetAdmin])).unwrap();
    let high = 7 << 32;
    for ring in [5, 13, high | 5] {
        assert_eq!(answer(&usual, "setsockopt", &[3, high | 263, ring]), EPERM);
        assert_eq!(answer(&admin, "setsockopt", &[3, 263, ring]), ALLOW);
        assert_eq!(answer(&usual, "setsockopt", &[3, 1, ring]), ALLOW, "SOL_SOCKET");
    }
    for option in [1, 4, 6, 10, 18] {
        assert_eq!(answer(&usual, "setsockopt", &[3, 263, option]), ALLOW, "{option}");
    }
    assert_eq!(answer(&usual, "socket", &[44]), EPERM);
    assert_eq!(answer(&admin, "socket", &[44]), ALLOW);
    assert_eq!(answer(&admin, "socket", &[40]), EPERM);
    assert_eq!(answer(&usual, "socket", &[17]), ALLOW);
}

#[test]
fn capabilities_bring_their_calls() {
    let has = |capability| runtime_default(&HashSet::from([capability])).unwrap();
    let admin = has(Capability::SysAdmin);
    for name in ["mount", "unshare", "bpf", "clone3"] {
        assert_eq!(answer(&admin, name, &[0x1000_0000]), ALLOW, "{name}");
    }
    assert_eq!(answer(&has(Capability::SysChroot), "chroot", &[]), ALLOW);
    assert_eq!(answer(&has(Capability::NetAdmin), "mount", &[]), EPERM);
}

#[test]
fn profiles_of_the_node_say_what_they_say() {
    let filters = from_json(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS",
             "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}]}"#,
    )
    .unwrap();
    assert_eq!(answer(&filters, "mkdir", &[]), ENOSYS);
    assert_eq!(answer(&filters, "kill", &[1, 9]), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(answer(&filters, "kill", &[1, 15]), ALLOW);
    assert_eq!(answer(&filters, "mount", &[]), ALLOW);
    let listed = from_json(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["write"], "action": "SCMP_ACT_LOG"}]}"#,
    )
    .unwrap();
    assert_eq!(answer(&listed, "read", &[]), ALLOW);
    assert_eq!(answer(&listed, "write", &[]), libc::SECCOMP_RET_LOG);
    assert_eq!(answer(&listed, "open", &[]), EPERM);
    for bad in ["", "{}", r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#] {
        assert!(from_json(bad).is_err(), "{bad}");
    }
}
