//! Pods with ids of their own (`hostUsers: false`): their range of the node's ids, and the namespaces that go with it.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use gantry_images::idmap::OwnIds;
use gantry_nodeagent_api::PodConfig;

use super::Failure;
use super::pods::{Pods, network_mark};
use crate::runtime::UserNamespace;

impl Pods {
    /// A pod's ids, if it has its own.
    pub(super) fn own_ids(&self, uid: &str, pod: &PodConfig) -> Result<Option<UserNamespace>, Failure> {
        if !pod.security.own_ids {
            return Ok(None);
        }
        let first = self.ids.claim(uid)?;
        let path = self.netns.user_path(uid);
        Ok(Some(UserNamespace { path, first }))
    }

    /// The same, and the namespaces are made if they are not there.
    pub(super) fn make_own_ids(&self, uid: &str, pod: &PodConfig) -> Result<Option<UserNamespace>, Failure> {
        let ids = self.own_ids(uid, pod)?;
        let Some(missing) = ids.as_ref().filter(|_| !self.netns.exists_mapped(uid)) else {
            return Ok(ids);
        };
        // The new network namespace has no network yet.
        let mark = network_mark(&self.runtime.pod(uid));
        match fs::remove_file(&mark) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Failure::io("remove", &mark)(e)),
            _ => {}
        }
        let made = self.netns.create_mapped(uid, missing.first);
        made.map_err(Failure::io("make user namespace", &missing.path))?;
        Ok(ids)
    }
}

/// Does something with the ids as a root file system takes them.
pub(super) fn with_ids<T>(
    ids: Option<&UserNamespace>,
    work: impl FnOnce(Option<OwnIds<'_>>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(ids) = ids else {
        return work(None);
    };
    let namespace = ids.open()?;
    work(Some(OwnIds {
        namespace: namespace.as_fd(),
        first: ids.first,
    }))
}
