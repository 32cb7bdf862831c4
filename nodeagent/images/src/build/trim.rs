//! What no image takes along, whatever its recipe says; and what it leaves out unless its recipe keeps it.

use tar::EntryType;

/// Folders of which only the folder itself stays.
const EMPTIED: [&str; 8] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "var/tmp",
    "etc/apt/sources.list.d",
    "var/lib/apt/lists",
];
/// Folders that keep their folders and lose everything else: programs expect the folders.
const HOLLOWED: [&str; 2] = ["var/log", "var/cache"];
/// Traces of the build host, of the time of the build, or of building.
const DROPPED: [&str; 18] = [
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/machine-id",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "usr/sbin/policy-rc.d",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/status-old",
    "var/lib/systemd/catalog/database",
    "var/lib/systemd/random-seed",
];
/// What installs, configures, documents and starts packages: a container does none of it. A `*` stands for any part of a name.
/// `/var/lib/dpkg/status` is not in the list: scanners read it.
pub(super) const USUAL: [&str; 44] = [
    "etc/apt",
    "etc/cron.d",
    "etc/cron.daily",
    "etc/cron.weekly",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/perl",
    "etc/rc*.d",
    "etc/systemd",
    "usr/bin/apt*",
    "usr/bin/dpkg*",
    "usr/bin/perl*",
    "usr/bin/python3*",
    "usr/lib/*/gconv",
    "usr/lib/*/libapt-p*",
    "usr/lib/*/libperl.so*",
    "usr/lib/*/perl*",
    "usr/lib/*/security",
    "usr/lib/apt",
    "usr/lib/dpkg",
    "usr/lib/init",
    "usr/lib/python3*",
    "usr/lib/systemd",
    "usr/lib/udev",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/dh-python",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/keyrings",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl*",
    "usr/share/pixmaps",
    "usr/share/python3*",
    "usr/share/zoneinfo",
    "var/backups",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg/info",
];

/// What of a tree an image takes along.
#[derive(Default)]
pub(super) struct Trim<'a> {
    /// Absolute paths that go too.
    pub more: &'a [String],
    /// Absolute paths that stay although they usually go.
    pub keep: &'a [String],
}

impl Trim<'_> {
    /// Whether an image has it.
    pub(super) fn stays(&self, path: &[u8], kind: EntryType) -> bool {
        if matches!(kind, EntryType::Char | EntryType::Block) || is_volatile(path, kind) {
            return false;
        }
        if self.more.iter().any(|pattern| covers(pattern, path)) {
            return false;
        }
        let kept = |pattern: &String| {
            covers(pattern, path) || (kind == EntryType::Directory && leads_to(path, pattern))
        };
        !USUAL.iter().any(|pattern| covers(pattern, path)) || self.keep.iter().any(kept)
    }
}

/// Whether what is in a folder may be in an image at all.
pub(super) fn is_entered(folder: &[u8]) -> bool {
    !EMPTIED.iter().any(|pattern| covers(pattern, folder))
}

fn is_volatile(path: &[u8], kind: EntryType) -> bool {
    let below = |dir: &&str| {
        let rest = path.strip_prefix(dir.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    };
    DROPPED.iter().any(|p| covers(p, path))
        || EMPTIED.iter().any(below)
        || (HOLLOWED.iter().any(below) && kind != EntryType::Directory)
        // Byte code carries times, and Python makes it anew.
        || path.split(|b| *b == b'/').any(|p| p == b"__pycache__")
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty())
}

/// True for what the pattern names, and for all below it.
fn covers(pattern: &str, path: &[u8]) -> bool {
    let mut path = names(path);
    names(pattern.as_bytes()).all(|part| path.next().is_some_and(|name| matches(part, name)))
}

/// True for the folders above what the pattern names.
fn leads_to(path: &[u8], pattern: &str) -> bool {
    let mut parts = names(pattern.as_bytes());
    names(path).all(|name| parts.next().is_some_and(|part| matches(part, name)))
}

fn matches(part: &[u8], name: &[u8]) -> bool {
    match part.iter().position(|b| *b == b'*') {
        None => part == name,
        Some(star) => {
            let (start, end) = (&part[..star], &part[star + 1..]);
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volatile_and_usual_things_go_and_others_stay() {
        let (dir, file) = (EntryType::Directory, EntryType::Regular);
        let more = ["/opt/x*".to_owned()];
        let keep = [
            "/usr/share/zoneinfo/Etc".to_owned(),
            "/var/lib/apt/lists".to_owned(),
        ];
        let trim = Trim {
            more: &more,
            keep: &keep,
        };
        for (path, kind, expected) in [
            ("dev", dir, true),
            ("dev/null", EntryType::Char, false),
            ("var/log/apt", dir, true),
            ("var/log/apt/term.log", file, false),
            ("var/cache/ldconfig/aux-cache", file, false),
            ("var/lib/apt/lists/x", file, false),
            ("var/lib/dpkg/status", file, true),
            ("etc/machine-id", file, false),
            ("etc/shadow", file, true),
            ("etc/rc2.d/S01x", file, false),
            ("usr/bin/perl5.36.0", file, false),
            ("usr/bin/per", file, true),
            ("usr/lib/x86_64-linux-gnu/libperl.so.5.36", file, false),
            ("usr/share/doc", dir, false),
            ("usr/share/doc/x/copyright", file, false),
            ("usr/share/docs", dir, true),
            ("usr/share/zoneinfo", dir, true),
            ("usr/share/zoneinfo/Europe", dir, false),
            ("usr/share/zoneinfo/Etc/UTC", file, true),
            ("opt/xy/z", file, false),
            ("opt/y", file, true),
            ("usr/x/__pycache__/x.pyc", file, false),
        ] {
            assert_eq!(trim.stays(path.as_bytes(), kind), expected, "{path}");
        }
    }
}
