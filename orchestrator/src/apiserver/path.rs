//! URLs to resources.

use super::error::ApiError;
use crate::kinds::{Kind, by_plural};

/// What a URL names.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    /// The kind.
    pub kind: &'static Kind,
    /// The namespace; `None` for all, and for cluster-wide kinds.
    pub namespace: Option<&'a str>,
    /// The object; `None` for the collection.
    pub name: Option<&'a str>,
    /// `status`, `scale`, `log`...
    pub sub: Option<&'a str>,
}

impl<'a> Resource<'a> {
    /// Parses `/api/v1/...` and `/apis/<group>/<version>/...`. 404 for anything else.
    pub fn parse(path: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_path()),
        };
        let find = |plural: &str| by_plural(group, version, plural).ok_or_else(ApiError::no_such_path);
        let (kind, namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !["status", "finalize"].contains(plural) => {
                let kind = find(plural)?;
                if !kind.namespaced {
                    return Err(ApiError::no_such_path());
                }
                (kind, Some(*namespace), rest)
            }
            [plural, rest @ ..] => (find(plural)?, None, rest),
            [] => return Err(ApiError::no_such_path()),
        };
        let (name, sub) = match rest {
            [] => (None, None),
            [name] => (Some(*name), None),
            [name, sub] => (Some(*name), Some(*sub)),
            _ => return Err(ApiError::no_such_path()),
        };
        if name.is_some() && kind.namespaced && namespace.is_none() {
            return Err(ApiError::no_such_path());
        }
        Ok(Self {
            kind,
            namespace,
            name,
            sub,
        })
    }

    /// The namespace, empty if none.
    pub fn namespace(&self) -> &'a str {
        self.namespace.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let pod = Resource::parse("/api/v1/namespaces/default/pods/p/log").expect("a pod's log");
        assert_eq!(
            (pod.kind.kind, pod.namespace, pod.name, pod.sub),
            ("Pod", Some("default"), Some("p"), Some("log"))
        );
        let namespace = Resource::parse("/api/v1/namespaces/default/status").expect("a namespace's status");
        assert_eq!(
            (namespace.kind.kind, namespace.name, namespace.sub),
            ("Namespace", Some("default"), Some("status"))
        );
        let all = Resource::parse("/apis/gantry.dev/v1/networkfunctions").expect("all functions");
        assert_eq!(
            (all.kind.kind, all.namespace, all.name),
            ("NetworkFunction", None, None)
        );
        for wrong in [
            "/",
            "/api/v1",
            "/api/v1/nothings",
            "/api/v2/pods",
            "/api/v1/pods/p",
            "/api/v1/namespaces/x/nodes",
        ] {
            assert!(Resource::parse(wrong).is_err(), "{wrong}");
        }
    }
}
