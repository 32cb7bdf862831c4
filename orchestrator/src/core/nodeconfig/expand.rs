//! Kubernetes' `$(VAR)`: in values of variables, in command and arguments, in sub paths.
//!
//! Source: k8s.io/kubernetes/third_party/forked/golang/expansion.

use std::collections::BTreeMap;

/// Variables by name.
pub(super) type Vars = BTreeMap<String, String>;

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign; an unknown name stays as it is.
pub(super) fn expand(text: &str, vars: &Vars) -> String {
    expand_with(text, |name| vars.get(name).cloned())
}

/// As [`expand`]; an unknown name is an error that says it.
pub(super) fn expand_all(text: &str, vars: &Vars) -> Result<String, String> {
    let mut unknown = None;
    let expanded = expand_with(text, |name| {
        let found = vars.get(name).cloned();
        if found.is_none() {
            unknown.get_or_insert(name.to_owned());
        }
        found
    });
    match unknown {
        Some(name) => Err(format!("missing value for {name:?}")),
        None => Ok(expanded),
    }
}

fn expand_with(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
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
            assert_eq!(expand(text, &vars), expanded, "{text}");
        }
        assert_eq!(expand_all("a/$(A)", &vars).unwrap(), "a/1");
        assert!(expand_all("$(B)", &vars).unwrap_err().contains("\"B\""));
    }
}
