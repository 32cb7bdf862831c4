//! Reads profiles of the node, in JSON.

use nix::libc;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Rules, SeccompError, table};

/// The rules of a profile. Calls that this architecture does not have are left out; what asks for more than is done is refused.
pub(super) fn rules(profile: &str) -> Result<Rules, SeccompError> {
    let profile: LinuxSeccomp = serde_json::from_str(profile)?;
    let unsupported = |what: &str| Err(SeccompError::Unsupported(what.to_owned()));
    let here = |a: &Arch| matches!(a, Arch::ScmpArchX86_64);
    if profile
        .architectures()
        .as_ref()
        .is_some_and(|list| !list.is_empty() && !list.iter().any(here))
    {
        return unsupported("architectures without SCMP_ARCH_X86_64");
    }
    if profile.listener_path().is_some() {
        return unsupported("listenerPath");
    }
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut named = Vec::new();
    for call in profile.syscalls().iter().flatten() {
        let action = action(call.action(), call.errno_ret())?;
        let conditions = call
            .args()
            .iter()
            .flatten()
            .map(condition)
            .collect::<Result<Vec<_>, _>>()?;
        let rules = if conditions.is_empty() {
            Vec::new()
        } else {
            vec![SeccompRule::new(conditions)?]
        };
        for number in call.names().iter().filter_map(|name| table::number(name)) {
            named.push((number, action.clone(), rules.clone()));
        }
    }
    Ok(Rules { default, named })
}

fn action(from: LinuxSeccompAction, errno: Option<u32>) -> Result<SeccompAction, SeccompError> {
    use LinuxSeccompAction::{
        ScmpActAllow, ScmpActErrno, ScmpActKill, ScmpActKillProcess, ScmpActKillThread, ScmpActLog,
        ScmpActTrap,
    };
    Ok(match from {
        ScmpActAllow => SeccompAction::Allow,
        ScmpActErrno => SeccompAction::Errno(errno.unwrap_or(libc::EPERM.cast_unsigned())),
        ScmpActKill | ScmpActKillThread => SeccompAction::KillThread,
        ScmpActKillProcess => SeccompAction::KillProcess,
        ScmpActLog => SeccompAction::Log,
        ScmpActTrap => SeccompAction::Trap,
        other => return Err(SeccompError::Unsupported(format!("{other:?}"))),
    })
}

fn condition(from: &LinuxSeccompArg) -> Result<SeccompCondition, SeccompError> {
    use LinuxSeccompOperator::{
        ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpLe, ScmpCmpLt, ScmpCmpMaskedEq, ScmpCmpNe,
    };
    let (op, value) = match from.op() {
        ScmpCmpEq => (SeccompCmpOp::Eq, from.value()),
        ScmpCmpGe => (SeccompCmpOp::Ge, from.value()),
        ScmpCmpGt => (SeccompCmpOp::Gt, from.value()),
        ScmpCmpLe => (SeccompCmpOp::Le, from.value()),
        ScmpCmpLt => (SeccompCmpOp::Lt, from.value()),
        ScmpCmpNe => (SeccompCmpOp::Ne, from.value()),
        // `value` is the mask, `valueTwo` what is compared.
        ScmpCmpMaskedEq => (
            SeccompCmpOp::MaskedEq(from.value()),
            from.value_two().unwrap_or(0),
        ),
    };
    let index = u8::try_from(from.index()).map_err(|_| SeccompError::Unsupported("args.index".to_owned()))?;
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value)?)
}
