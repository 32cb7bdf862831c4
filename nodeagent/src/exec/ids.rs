//! The ids of a command in a container that has its own: libcontainer joins all namespaces but the user namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{LinuxNamespaceType, Spec, User};

/// A user namespace, opened where that is still possible.
#[derive(Clone)]
pub(super) struct OwnIds(Rc<File>);

impl OwnIds {
    /// Of a container, by its description on the host; `None` if its ids are the host's.
    pub(super) fn of(container: &Spec) -> io::Result<Option<Self>> {
        let namespaces = container.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        let mut namespaces = namespaces.into_iter().flatten();
        let users = namespaces.find(|n| n.typ() == LinuxNamespaceType::User);
        let path = users.and_then(|n| n.path().as_ref());
        path.map(|path| File::open(path).map(|file| Self(Rc::new(file))))
            .transpose()
    }

    /// Joins the namespace, and becomes the user there that the process so far was on the host. It has all capabilities then, but of the
    /// namespace only.
    pub(super) fn assume(&self, user: &User) -> io::Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWUSER)?;
        let groups = user.additional_gids().iter().flatten();
        setgroups(&groups.map(|id| Gid::from_raw(*id)).collect::<Vec<_>>())?;
        let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
        setresgid(gid, gid, gid)?;
        // It was not root of the namespace before, so it loses no capability (`capabilities(7)`, changes of user ids).
        setresuid(uid, uid, uid)?;
        Ok(())
    }
}
