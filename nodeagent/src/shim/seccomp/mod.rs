//! Which system calls a container may make: a profile, compiled for the kernel (`seccomp(2)`). Pure, but for [`install`].
//!
//! A filter has two answers, so a profile becomes several, one an answer, and the kernel takes the strictest of what they say: one
//! that lets through all that the profile names and answers the rest by its default, and one for each answer to a named call.
//! Programs of another architecture (32 bit) are killed at their first call.

mod default;
mod localhost;
mod table;

use std::collections::{BTreeMap, HashSet};
use std::io;

use nix::libc;
use oci_spec::runtime::Capability;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter};
use serde::{Deserialize, Serialize};

/// Why a profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("the seccomp profile is no JSON of the runtime specification")]
    Json(#[from] serde_json::Error),
    #[error("the seccomp profile asks for `{0}`, which is not supported")]
    Unsupported(String),
    #[error("the seccomp profile cannot be compiled")]
    Compile(#[from] seccompiler::BackendError),
}

/// What is said to a system call; several rules on one call are alternatives.
#[derive(Clone, Debug)]
struct Rules {
    /// What calls get that are not named.
    default: SeccompAction,
    /// What named ones get, by number.
    named: Vec<(i64, SeccompAction, Vec<SeccompRule>)>,
}

/// One filter as the kernel takes it (`struct sock_filter`): code, jump if true, jump if false, operand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter(Vec<(u16, u8, u8, u32)>);

/// The filters of `RuntimeDefault` for a container with these capabilities.
pub(crate) fn runtime_default(capabilities: &HashSet<Capability>) -> Result<Vec<Filter>, SeccompError> {
    compile(default::rules(capabilities)?)
}

/// The filters of a profile in the format of the runtime specification (`config-linux.md`, seccomp), as files of Docker have it.
pub(crate) fn from_json(profile: &str) -> Result<Vec<Filter>, SeccompError> {
    compile(localhost::rules(profile)?)
}

fn compile(rules: Rules) -> Result<Vec<Filter>, SeccompError> {
    let mut known: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut special: Vec<(SeccompAction, BTreeMap<i64, Vec<SeccompRule>>)> = Vec::new();
    for (number, action, conditions) in rules.named {
        merge(&mut known, number, &conditions);
        if action == SeccompAction::Allow || action == rules.default {
            continue;
        }
        let at = special.iter().position(|(a, _)| *a == action).unwrap_or_else(|| {
            special.push((action, BTreeMap::new()));
            special.len() - 1
        });
        merge(&mut special[at].1, number, &conditions);
    }
    let mut filters = Vec::new();
    if rules.default != SeccompAction::Allow {
        filters.push(filter(known, rules.default, SeccompAction::Allow)?);
    }
    for (action, calls) in special {
        filters.push(filter(calls, SeccompAction::Allow, action)?);
    }
    Ok(filters)
}

/// An entry without rules stands for the call whatever its arguments.
fn merge(into: &mut BTreeMap<i64, Vec<SeccompRule>>, number: i64, rules: &[SeccompRule]) {
    match into.get_mut(&number) {
        Some(there) if there.is_empty() || rules.is_empty() => there.clear(),
        Some(there) => there.extend_from_slice(rules),
        None => {
            into.insert(number, rules.to_vec());
        }
    }
}

fn filter(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<Filter, SeccompError> {
    let program: BpfProgram = SeccompFilter::new(calls, others, these, TargetArch::x86_64)?.try_into()?;
    Ok(Filter(
        program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect(),
    ))
}

/// Puts filters in force for this process and all that come of it. It has `no_new_privs`, or may administer its user namespace.
pub(crate) fn install(filters: &[Filter]) -> io::Result<()> {
    for filter in filters {
        let instruction = |&(code, jt, jf, k): &(u16, u8, u8, u32)| sock_filter { code, jt, jf, k };
        let program: Vec<sock_filter> = filter.0.iter().map(instruction).collect();
        let described = libc::sock_fprog {
            len: program.len().try_into().map_err(io::Error::other)?,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel reads `len` instructions, which live until the call returns; both structures have the kernel's layout.
        let done = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const described,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
