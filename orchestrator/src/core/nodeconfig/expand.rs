//! Kubernetes' `$(VAR)`: in values of variables, in command and arguments, in sub paths.
//!
//! Source: k8s.io/kubernetes/third_party/forked/golang/expansion.

use std::collections::BTreeMap;

use super::room::MAX_TEXT;

/// Variables by name.
pub(super) type Vars = BTreeMap<String, String>;

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign; an unknown name stays as it is. What becomes longer than
/// any program can be given is an error: variables of variables would double again and again.
pub(super) fn expand(text: &str, vars: &Vars) -> Result<String, String> {
    expand_with(text, |name| vars.get(name))
}

/// As [`expand`]; an unknown name is an error that says it.
pub(super) fn expand_all(text: &str, vars: &Vars) -> Result<String, String> {
    let mut unknown = None;
    let expanded = expand_with(text, |name| {
        let found = vars.get(name);
        if found.is_none() {
            unknown.get_or_insert(name.to_owned());
        }
        found
    })?;
    match unknown {
        Some(name) => Err(format!("missing value for {name:?}")),
        None => Ok(expanded),
    }
}

fn expand_with<'a>(text: &str, mut value: impl FnMut(&str) -> Option<&'a String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        push(&mut out, &rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            push(&mut out, "$")?;
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => push(&mut out, value)?,
                None => push(&mut out, &format!("$({name})"))?,
            }
            rest = after;
        } else {
            push(&mut out, "$")?;
        }
    }
    push(&mut out, rest)?;
    Ok(out)
}

fn push(out: &mut String, more: &str) -> Result<(), String> {
    if out.len() + more.len() > MAX_TEXT {
        return Err(format!(
            "longer than {MAX_TEXT} bytes, which is the most that a program can be given"
        ));
    }
    out.push_str(more);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_as_in_kubernetes() {
        let vars = Vars::from([("A".to_owned(), "1".to_owned())]);
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, &vars).unwrap(), expanded, "{text}");
        }
        assert_eq!(expand_all("a/$(A)", &vars).unwrap(), "a/1");
        assert!(expand_all("$(B)", &vars).unwrap_err().contains("\"B\""));
    }

    #[test]
    fn what_doubles_again_and_again_comes_to_an_end() {
        let mut vars = Vars::from([("A0".to_owned(), "x".repeat(10))]);
        let grown = |vars: &Vars, i: usize| expand(&format!("$(A{i})").repeat(10), vars);
        for i in 0..4 {
            let value = grown(&vars, i).unwrap();
            vars.insert(format!("A{}", i + 1), value);
        }
        let error = grown(&vars, 4).unwrap_err();
        assert!(error.contains("131071 bytes"), "{error}");
        assert!(expand(&"$$".repeat(MAX_TEXT + 1), &vars).is_err());
        assert!(expand(&"x".repeat(MAX_TEXT), &vars).is_ok());
    }
}
