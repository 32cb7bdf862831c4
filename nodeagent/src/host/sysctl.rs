//! Bounds that the kernel has for the whole node, or for all processes of one user, where one pod could take everything: raised, never
//! lowered, so far that another bound is met first, the limit on memory of each pod and of all together. What they count is memory that
//! control groups count too, so nothing is given away; but for terminals, as is said there.

use std::fs;
use std::io;
use std::path::Path;

/// What is wanted of one.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// So many that the node's memory is used up first, where each takes as many bytes at least.
    OfBytes(u64),
    /// As many as the kernel takes.
    Number(u64),
}
use Wanted::{Number, OfBytes};

/// By name as `sysctl(8)` has it.
const BOUNDS: [(&str, Wanted); 10] = [
    // Pages of all sockets, the host's too: above the last of three numbers nothing is given (`__sk_mem_raise_allocated`,
    // net/core/sock.c). Pods have limits of their own (`cgroup/sockets.rs`; in v2 `memory.max`).
    ("net.ipv4.tcp_mem", OfBytes(4096)),
    ("net.ipv4.udp_mem", OfBytes(4096)),
    // Connections that were closed and still have something to send; above it they are cut off, whoever's they are
    // (`tcp_too_many_orphans`, net/ipv4/tcp.c). A `struct tcp_sock` (`tcp_prot`, SLAB_ACCOUNT: net/core/sock.c).
    ("net.ipv4.tcp_max_orphans", OfBytes(2048)),
    // Pages of pipes of one user; above it the next pipes are small (`alloc_pipe_info`, GFP_HIGHUSER | __GFP_ACCOUNT: fs/pipe.c).
    ("fs.pipe-user-pages-soft", OfBytes(4096)),
    // `struct file` (`filp_cache`, SLAB_ACCOUNT: fs/file_table.c).
    ("fs.file-max", OfBytes(256)),
    // A group of events and its file (`inotify_new_group`, GFP_KERNEL_ACCOUNT: fs/notify/group.c), counted per user.
    ("fs.inotify.max_user_instances", OfBytes(512)),
    // A mark (`inotify_inode_mark_cachep`, SLAB_ACCOUNT: fs/notify/inotify/inotify_user.c), counted per user.
    ("fs.inotify.max_user_watches", OfBytes(64)),
    // Two `struct io_event` of 32 bytes in a ring whose pages are page cache (`aio_setup_ring`, fs/aio.c).
    ("fs.aio-max-nr", OfBytes(64)),
    // Of a terminal some 24 KiB are counted nowhere (its line disciplines, `n_tty_open`: drivers/tty/n_tty.c): all together may have a
    // 64th of the memory. A container has few of them (`shim/spec.rs`).
    ("kernel.pty.max", OfBytes(64 * (24 << 10))),
    // `PID_MAX_LIMIT` (include/linux/threads.h): a number alone takes no memory; processes have `pids.max` (`cgroup/processes.rs`).
    ("kernel.pid_max", Number(4 << 20)),
];

/// Raises what is below what a node with so much memory wants. Returns those that could not be written, as `name=value`.
pub fn raise(memory_bytes: u64) -> Vec<String> {
    raise_in(Path::new("/proc/sys"), memory_bytes)
}

fn raise_in(root: &Path, memory_bytes: u64) -> Vec<String> {
    let mut left = Vec::new();
    for (name, wanted) in BOUNDS {
        let number = match wanted {
            // Most of them are an `int` to the kernel.
            OfBytes(bytes) => (memory_bytes / bytes).min(i32::MAX as u64),
            Number(number) => number,
        };
        let file = root.join(name.replace('.', "/"));
        let text = match fs::read_to_string(&file) {
            // A kernel, or a namespace, without it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            read => read.unwrap_or_default(),
        };
        let Some(value) = raised(&text, number) else {
            continue;
        };
        if fs::write(&file, &value).is_err() {
            left.push(format!("{name}={value}"));
        }
    }
    left
}

/// The numbers of a value, each as large as is wanted; `None` where they are.
fn raised(text: &str, wanted: u64) -> Option<String> {
    // One that cannot be read is beyond what is wanted, or none at all: it is left alone.
    let numbers = text
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(u64::MAX));
    let numbers: Vec<u64> = numbers.collect();
    let is_low = numbers.iter().any(|number| *number < wanted);
    let words: Vec<String> = numbers
        .iter()
        .map(|number| wanted.max(*number).to_string())
        .collect();
    is_low.then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_raised_and_never_lowered() {
        assert_eq!(raised("128\n", 1000).as_deref(), Some("1000"));
        assert_eq!(raised("1\t5000\t9000\n", 6000).as_deref(), Some("6000 6000 9000"));
        for high in ["1000\n", "9223372036854775807\n", "99999999999999999999999", ""] {
            assert_eq!(raised(high, 1000), None, "{high}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_value() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        file("fs/aio-max-nr", "65536\n");
        file("kernel/pid_max", "4194304\n");
        assert_eq!(raise_in(root.path(), 1 << 30), Vec::<String>::new());
        assert_eq!(read("fs/aio-max-nr"), (1_u64 << 24).to_string());
        assert_eq!(read("kernel/pid_max"), "4194304\n", "it is not written");
        assert_eq!(raise_in(root.path(), 1 << 20), Vec::<String>::new());
        assert_eq!(read("fs/aio-max-nr"), (1_u64 << 24).to_string());
        // A value of a real kernel that nobody may write stands for a /proc/sys that is read-only.
        fs::remove_file(root.path().join("fs/aio-max-nr")).unwrap();
        let fixed = "/proc/sys/kernel/random/entropy_avail";
        std::os::unix::fs::symlink(fixed, root.path().join("fs/aio-max-nr")).unwrap();
        assert_eq!(raise_in(root.path(), 1 << 30), ["fs.aio-max-nr=16777216"]);
    }
}
