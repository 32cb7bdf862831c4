//! Reads `default.txt`, which is part of the program.

use std::collections::HashSet;

use nix::libc;
use oci_spec::runtime::Capability;
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Rules, SeccompError, table};

const PROFILE: &str = include_str!("default.txt");

const EPERM: SeccompAction = SeccompAction::Errno(libc::EPERM.cast_unsigned());
const ENOSYS: SeccompAction = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());

/// The default profile of a container with these capabilities.
pub(super) fn rules(capabilities: &HashSet<Capability>) -> Result<Rules, SeccompError> {
    let mut named: Vec<_> = table::to_come()
        .map(|number| (number, ENOSYS, Vec::new()))
        .collect();
    let mut counts = true;
    for line in PROFILE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix('[') {
            counts = applies(heading.trim_end_matches(']'), capabilities)?;
        } else if counts {
            read(line, &mut named)?;
        }
    }
    Ok(Rules {
        default: EPERM,
        named,
    })
}

fn applies(heading: &str, capabilities: &HashSet<Capability>) -> Result<bool, SeccompError> {
    let mut words = heading.split(' ');
    let kind = words.next().unwrap_or_default();
    let mut one = false;
    for word in words {
        let capability: Capability = word.parse().map_err(|_| wrong(heading))?;
        one |= capabilities.contains(&capability);
    }
    match kind {
        "always" => Ok(true),
        "with" => Ok(one),
        "without" => Ok(!one),
        _ => Err(wrong(heading)),
    }
}

type Named = Vec<(i64, SeccompAction, Vec<SeccompRule>)>;

fn read(line: &str, named: &mut Named) -> Result<(), SeccompError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let call = |name: &str| table::number(name).ok_or_else(|| wrong(name));
    match words[..] {
        [name, "=", "ENOSYS"] => named.push((call(name)?, ENOSYS, Vec::new())),
        // No call has a name of digits.
        [name, argument, ..] if argument.starts_with(|c: char| c.is_ascii_digit()) => {
            let conditions = line.trim_start_matches(name).split(',').map(condition);
            let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
            named.push((call(name)?, SeccompAction::Allow, vec![rule]));
        }
        _ => {
            for name in words {
                named.push((call(name)?, SeccompAction::Allow, Vec::new()));
            }
        }
    }
    Ok(())
}

/// All arguments that are compared here are of 32 bits to the kernel.
fn condition(text: &str) -> Result<SeccompCondition, SeccompError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (argument, op, value) = match words[..] {
        [argument, "==", value] => (argument, SeccompCmpOp::Eq, value),
        [argument, "!=", value] => (argument, SeccompCmpOp::Ne, value),
        [argument, "&", mask, "==", value] => (argument, SeccompCmpOp::MaskedEq(value_of(mask)?), value),
        _ => return Err(wrong(text)),
    };
    let argument = argument.parse().map_err(|_| wrong(argument))?;
    let value = value_of(value)?;
    Ok(SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        op,
        value,
    )?)
}

fn value_of(text: &str) -> Result<u64, SeccompError> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    value.map_err(|_| wrong(text))
}

fn wrong(text: &str) -> SeccompError {
    SeccompError::Unsupported(text.to_owned())
}
