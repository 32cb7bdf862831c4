//! What a process of a container may do, made so in its last step before its program: capabilities, system calls, keys. The last,
//! because until then it has the capabilities of the shim, and so no process of the container can look into it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use oci_spec::runtime::Capability;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use serde::{Deserialize, Serialize};

use super::seccomp::{self, Filter, SeccompError};
use crate::guard;
use crate::runtime::{ContainerStart, PodDir, SeccompProfile};

/// Of `linux/keyctl.h`.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
/// Number of the last capability that a kernel may know (`capabilities(7)`: a set has 64 bits).
const LAST_CAPABILITY: u32 = 63;

/// The wall around one container, the same for all that is run in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Wall {
    /// What processes of root may at most have.
    capabilities: u64,
    /// What processes of every user have.
    ambient: u64,
    no_new_privileges: bool,
    /// Name of the session keyring.
    keyring: String,
    filters: Vec<Filter>,
    /// The host's id of user 0 in it.
    pub(crate) first_id: u32,
    /// Soft limit on open files, if not the usual.
    pub(crate) open_files: Option<u64>,
    /// How soon it is killed where memory runs out.
    pub(crate) oom_score_adj: i32,
}

/// A start request that cannot be turned into a wall.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WallError {
    #[error(
        "capability `{0}` does not exist; write it as in capabilities(7) without CAP_, for example NET_ADMIN"
    )]
    Capability(String),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

impl Wall {
    pub(crate) fn of(dir: &PodDir, start: &ContainerStart) -> Result<Self, WallError> {
        let security = &start.security;
        let (capabilities, ambient) = if security.privileged || guard::off("capabilities") {
            (own_capabilities(), own_capabilities())
        } else {
            let ambient = parse(&security.capabilities)?;
            (ambient | parse(&security.root_capabilities)?, ambient)
        };
        let filters = match &start.seccomp {
            _ if guard::off("seccomp") => Vec::new(),
            SeccompProfile::Unconfined => Vec::new(),
            SeccompProfile::RuntimeDefault if security.privileged => Vec::new(),
            SeccompProfile::RuntimeDefault => seccomp::runtime_default(&names(capabilities))?,
            SeccompProfile::Json(profile) => seccomp::from_json(profile)?,
        };
        let pod = dir.path().file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            capabilities: capabilities.bits(),
            ambient: ambient.bits(),
            no_new_privileges: no_new_privileges(start),
            keyring: format!("_ses.{pod}-{}", start.name),
            filters,
            first_id: start.first_id(),
            open_files: start.open_files,
            oom_score_adj: start.oom_score_adj,
        })
    }

    pub(crate) fn save(&self, bundle: &Path) -> io::Result<()> {
        fs::write(file(bundle), serde_json::to_vec(self)?)
    }

    /// Of a container; `None` for one that a version without such files has started.
    pub(crate) fn load(bundle: &Path) -> io::Result<Option<Self>> {
        match fs::read(file(bundle)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Puts the calling process behind the wall. What is forbidden afterwards may be needed before: without `no_new_privs` filters
    /// take a capability, so they come before those go; with it they come last.
    pub(crate) fn raise(&self) -> io::Result<()> {
        self.join_keyring()?;
        let capabilities = CapabilitySet::from_bits_retain(self.capabilities);
        bound(capabilities).map_err(|e| said("drop capabilities", &e))?;
        let filter = || seccomp::install(&self.filters).map_err(|e| said("install the seccomp profile", &e));
        if !self.no_new_privileges {
            filter()?;
        }
        become_only(capabilities, CapabilitySet::from_bits_retain(self.ambient))
            .map_err(|e| said("drop capabilities", &e))?;
        if self.no_new_privileges {
            filter()?;
        }
        Ok(())
    }

    /// A session keyring of the container's own (`session-keyring(7)`): else it has the one of whoever started the agent.
    fn join_keyring(&self) -> io::Result<()> {
        if guard::off("keyring") {
            return Ok(());
        }
        let name = std::ffi::CString::new(self.keyring.as_bytes())?;
        // SAFETY: the name lives during the call.
        let joined = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
        match joined {
            -1 if io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) => {
                Err(said("join a session keyring", &io::Error::last_os_error()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether programs get no more than the one that executes them has.
pub(super) fn no_new_privileges(start: &ContainerStart) -> bool {
    let security = &start.security;
    !security.privileged && !security.allow_privilege_escalation && !guard::off("no-new-privileges")
}

fn file(bundle: &Path) -> PathBuf {
    bundle.join("wall.json")
}

fn parse(list: &[String]) -> Result<CapabilitySet, WallError> {
    let mut set = CapabilitySet::empty();
    for name in list {
        set |= match name.strip_prefix("CAP_").unwrap_or(name) {
            "ALL" => own_capabilities(),
            bare => CapabilitySet::from_name(bare).ok_or_else(|| WallError::Capability(name.clone()))?,
        };
    }
    Ok(set)
}

fn names(set: CapabilitySet) -> HashSet<Capability> {
    set.iter_names()
        .filter_map(|(name, _)| name.parse().ok())
        .collect()
}

/// What the shim itself may do: on some hosts root has less than everything, and nobody can give what he has not.
fn own_capabilities() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted)
}

/// No program that is executed later gets any other.
fn bound(capabilities: CapabilitySet) -> io::Result<()> {
    for number in 0..=LAST_CAPABILITY {
        // SAFETY: takes numbers only. EINVAL: the kernel does not know it.
        let has = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } == 1;
        if !has || capabilities.bits() & (1 << number) != 0 {
            continue;
        }
        // SAFETY: takes numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn become_only(has: CapabilitySet, ambient: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    // Capabilities that the shim itself has not cannot be given.
    let has = has & own_capabilities();
    let ambient = ambient & has;
    set_capabilities(
        None,
        CapabilitySets {
            effective: has,
            permitted: has,
            inheritable: ambient,
        },
    )?;
    for capability in ambient {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

fn said(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}
