//! Who a container's process is: what its image says, by the image's account files, and what a pod asks for instead.

use std::path::{Path, PathBuf};

use crate::beneath;
use crate::walk::Stack;

/// Largest user or group id, as in Kubernetes and containerd. The kernel has ids of 32 bits, and takes the last one for "leave it
/// as it is": a process that is to become it stays root, a file stays root's.
pub const MAX_ID: u32 = 2_147_483_647;
/// Largest /etc/passwd or /etc/group that is read, in bytes.
const ACCOUNT_FILE_LIMIT_BYTES: u64 = 1 << 20;
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// What a pod asks for instead of what its image says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// User id.
    pub user: Option<u32>,
    /// Primary group id.
    pub group: Option<u32>,
}

/// Numeric ids to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups from the image's /etc/group, sorted.
    pub groups: Vec<u32>,
    /// Home directory from the image's /etc/passwd, `/` if unknown.
    pub home: String,
}

/// A user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A name that the image's account files do not have.
    #[error("the image has no {what} {name:?} in {file}; name one that it has, or use a number")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The account file.
        file: &'static str,
    },
    /// A number that is no id.
    #[error("{id} is no {what}: ids are 0 to {MAX_ID}; use another one")]
    Range {
        /// `user` or `group`.
        what: &'static str,
        /// The number, and where it comes from.
        id: String,
    },
    /// An account file cannot be read.
    #[error(
        "cannot read {file} of the image under {root}; the image may be damaged, build or import it again"
    )]
    Read {
        /// The account file.
        file: &'static str,
        /// The root file system.
        root: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Resolves an image's `user` (`name|uid[:group|gid]`; what is empty is root, and its primary group) by the account files inside
/// `root` (a mounted root file system), unless the pod asks for somebody else. Symbolic links are followed inside `root` only.
pub fn resolve_user(root: &Path, user: &str, asked: Asked) -> Result<ResolvedUser, UserError> {
    let read = |file: &'static str| {
        let fail = |source| UserError::Read {
            file,
            root: root.display().to_string(),
            source,
        };
        let dir = std::fs::File::open(root).map_err(fail)?;
        let inside = Path::new(file.trim_start_matches('/'));
        match beneath::read_in_root(&dir, inside, ACCOUNT_FILE_LIMIT_BYTES) {
            // Images of one static binary have none.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(fail(e)),
            Ok(data) => Ok(String::from_utf8_lossy(&data).into_owned()),
        }
    };
    resolve(&read(USERS)?, &read(GROUPS)?, user, asked)
}

/// The same for an image that is not mounted, by its layers, top first.
pub(crate) fn resolve_user_in_layers(layers: &[PathBuf], user: &str) -> Result<ResolvedUser, UserError> {
    let read = |file: &'static str| {
        let fail = |source| UserError::Read {
            file,
            root: layers
                .first()
                .map(|l| l.display().to_string())
                .unwrap_or_default(),
            source,
        };
        let stack = Stack::open(layers).map_err(fail)?;
        let parts = file.trim_start_matches('/').split('/');
        let path: Vec<Vec<u8>> = parts.map(|part| part.as_bytes().to_vec()).collect();
        let node = stack.walk(&path, true).map_err(fail)?.node;
        let bytes = node
            .map(|node| node.read(ACCOUNT_FILE_LIMIT_BYTES))
            .transpose()
            .map_err(fail)?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    resolve(&read(USERS)?, &read(GROUPS)?, user, Asked::default())
}

fn resolve(passwd: &str, group: &str, user: &str, asked: Asked) -> Result<ResolvedUser, UserError> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let uid = match asked.user {
        Some(uid) => id("user", &uid.to_string(), "the pod asks for it").transpose()?,
        None if name.is_empty() => Some(0),
        None => id("user", name, "the image says so").transpose()?,
    };
    let of_uid = |uid: u32| move |row: &Vec<&str>| row[2].parse() == Ok(uid);
    let (uid, account) = match uid {
        Some(uid) => (uid, rows(passwd).find(of_uid(uid))),
        None => {
            let (uid, row) = named("user", passwd, USERS, name)?;
            (uid, Some(row))
        }
    };
    let gid = match asked.group {
        Some(gid) => id("group", &gid.to_string(), "the pod asks for it").transpose()?,
        None if group_name.is_empty() || asked.user.is_some() => {
            let primary = account.as_ref().and_then(|row| row.get(3));
            let primary = primary.and_then(|gid| id("group", gid, USERS)).transpose()?;
            Some(primary.unwrap_or_default())
        }
        None => id("group", group_name, "the image says so").transpose()?,
    };
    let gid = match gid {
        Some(gid) => gid,
        None => named("group", group, GROUPS, group_name)?.0,
    };
    let login = account.as_ref().map(|row| row[0]);
    let lists = |row: &Vec<&str>| {
        let members = row.get(3).into_iter().flat_map(|members| members.split(','));
        login.is_some_and(|login| !login.is_empty() && members.into_iter().any(|m| m == login))
    };
    let groups = rows(group)
        .filter(lists)
        .filter_map(|row| id("group", row[2], GROUPS));
    let mut groups = groups.collect::<Result<Vec<u32>, _>>()?;
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|other| *other != gid);
    let home = account.as_ref().and_then(|row| row.get(5)).copied();
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home: home.filter(|home| !home.is_empty()).unwrap_or("/").to_owned(),
    })
}

/// The id that a text of digits is, whoever has a name of digits; `None` where it is no such text.
fn id(what: &'static str, text: &str, whence: &str) -> Option<Result<u32, UserError>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let id = text.parse().ok().filter(|id| *id <= MAX_ID);
    Some(id.ok_or_else(|| UserError::Range {
        what,
        id: format!("{text} ({whence})"),
    }))
}

/// The id of a name, and its row.
fn named<'a>(
    what: &'static str,
    accounts: &'a str,
    file: &'static str,
    name: &str,
) -> Result<(u32, Vec<&'a str>), UserError> {
    let unknown = || UserError::Unknown {
        what,
        name: name.to_owned(),
        file,
    };
    let row = rows(accounts).find(|row| row[0] == name).ok_or_else(unknown)?;
    let id = id(what, row[2], file).unwrap_or_else(|| Err(unknown()))?;
    Ok((id, row))
}

/// Lines with a name and an id.
fn rows(accounts: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.filter(|row| row.len() >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nkamailio:x:106:110::/run/kamailio:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nkamailio:x:110:\nssl:x:111:kamailio,other\n";

    fn image(passwd: &str, group: &str, user: &str) -> Result<ResolvedUser, UserError> {
        resolve(passwd, group, user, Asked::default())
    }

    #[test]
    fn users_and_groups() {
        let r = |u: &str| image(PASSWD, GROUP, u).map(|r| (r.uid, r.gid, r.groups, r.home));
        assert_eq!(r("").unwrap(), (0, 0, vec![], "/root".into()));
        assert_eq!(
            r("kamailio").unwrap(),
            (106, 110, vec![111], "/run/kamailio".into())
        );
        assert_eq!(r("106").unwrap(), (106, 110, vec![111], "/run/kamailio".into()));
        assert_eq!(
            r("kamailio:ssl").unwrap(),
            (106, 111, vec![], "/run/kamailio".into())
        );
        assert_eq!(r("4242:17").unwrap(), (4242, 17, vec![], "/".into()));
        assert!(
            r("nobody")
                .unwrap_err()
                .to_string()
                .contains("no user \"nobody\"")
        );
        assert!(r("0:wheel").unwrap_err().to_string().contains("no group"));
        assert!(r("99999999999").is_err());
        // What is empty is root, and its primary group.
        for user in [":", "0:", ":0", "root:"] {
            assert_eq!(r(user).unwrap(), (0, 0, vec![], "/root".into()), "{user}");
        }
        assert_eq!(r("kamailio:").unwrap().1, 110);
    }

    #[test]
    fn an_id_that_the_kernel_takes_for_none_is_refused_wherever_it_comes_from() {
        let is_refused = |found: Result<ResolvedUser, UserError>| {
            assert!(matches!(found, Err(UserError::Range { .. })), "{found:?}");
        };
        for id in ["2147483648", "4294967295", "4294967296", "99999999999999999999"] {
            is_refused(image(PASSWD, GROUP, id));
            is_refused(image(PASSWD, GROUP, &format!("0:{id}")));
            is_refused(image(PASSWD, GROUP, &format!("kamailio:{id}")));
            is_refused(image(&format!("a:x:{id}:0::/:"), GROUP, "a"));
            is_refused(image(&format!("a:x:5:{id}::/:"), GROUP, "a"));
            is_refused(image(&format!("a:x:5:{id}::/:"), GROUP, "5"));
            is_refused(image(PASSWD, &format!("g:x:{id}:"), "0:g"));
            is_refused(image(PASSWD, &format!("g:x:{id}:kamailio"), "kamailio"));
            // Of nobody who is asked for.
            image(
                &format!("{PASSWD}a:x:{id}:{id}::/:"),
                &format!("g:x:{id}:b"),
                "kamailio",
            )
            .unwrap();
        }
        for id in [MAX_ID + 1, u32::MAX] {
            let user = Asked {
                user: Some(id),
                ..Asked::default()
            };
            is_refused(resolve(PASSWD, GROUP, "", user));
            let group = Asked {
                group: Some(id),
                ..Asked::default()
            };
            is_refused(resolve(PASSWD, GROUP, "", group));
        }
        let most = MAX_ID.to_string();
        assert_eq!(image(PASSWD, GROUP, &most).unwrap().uid, MAX_ID);
        let said = image(PASSWD, GROUP, "0:4294967295").unwrap_err().to_string();
        let words = "4294967295 (the image says so) is no group: ids are 0 to 2147483647; use another one";
        assert_eq!(said, words);
    }

    #[test]
    fn a_number_is_nobodys_name() {
        let passwd = "7:x:0:0::/:\nb:x:7:9::/:\n";
        let found = image(passwd, GROUP, "7").unwrap();
        assert_eq!((found.uid, found.gid), (7, 9));
    }

    #[test]
    fn account_files_are_read_inside_the_root_only() {
        let resolve_user = |root: &Path, user: &str| resolve_user(root, user, Asked::default());
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", etc.join("passwd")).unwrap();
        // Points at itself once the root is the limit: ELOOP, never the host's file.
        assert!(resolve_user(root.path(), "root").is_err());
        std::fs::remove_file(etc.join("passwd")).unwrap();
        std::fs::write(root.path().join("accounts"), PASSWD).unwrap();
        std::os::unix::fs::symlink("/accounts", etc.join("passwd")).unwrap();
        assert_eq!(resolve_user(root.path(), "kamailio").unwrap().uid, 106);
    }
}
