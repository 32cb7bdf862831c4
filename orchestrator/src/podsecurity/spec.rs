//! A pod as the controls look at it, and the words they say.

use serde_json::Value;

/// The value at a JSON pointer, `Null` if there is none.
pub(super) fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// Metadata and spec of a pod, or of a template.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    annotations: &'a Value,
    /// The spec.
    pub(super) spec: &'a Value,
}

impl<'a> Subject<'a> {
    /// What is at the pointer in the object.
    pub fn at(object: &'a Value, pointer: &str) -> Self {
        let pod = at(object, pointer);
        Self {
            annotations: at(pod, "/metadata/annotations"),
            spec: at(pod, "/spec"),
        }
    }

    /// Init containers, containers, ephemeral containers: in this order everywhere.
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        let lists = ["/initContainers", "/containers", "/ephemeralContainers"];
        lists
            .into_iter()
            .flat_map(move |list| at(spec, list).as_array().into_iter().flatten())
    }

    pub(super) fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let all = self.annotations.as_object().into_iter().flatten();
        all.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    }

    /// Names of the containers that are wrong.
    pub(super) fn which(&self, wrong: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|c| wrong(c))
            .map(|c| at(c, "/name").as_str().unwrap_or_default())
            .collect()
    }

    pub(super) fn is_windows(&self) -> bool {
        at(self.spec, "/os/name") == "windows"
    }

    /// Root in the pod is nobody on the node; the standards allow more then, since 1.35.
    pub(super) fn is_apart(&self, minor: u32) -> bool {
        minor >= 35 && at(self.spec, "/hostUsers") == false
    }
}

/// A field of a container's security context.
pub(super) fn security<'a>(container: &'a Value, field: &str) -> &'a Value {
    at(container, "/securityContext")
        .get(field)
        .unwrap_or(&Value::Null)
}

pub(super) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let all: Vec<_> = names.iter().map(|n| format!("\"{}\"", n.as_ref())).collect();
    all.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn named(containers: &[&str]) -> String {
    let word = plural("container", "containers", containers.len());
    format!("{word} {}", quoted(containers))
}

/// `pod and container "a"`.
pub(super) fn setters(pod: bool, containers: &[&str]) -> String {
    let pod = pod.then(|| "pod".to_owned());
    let containers = (!containers.is_empty()).then(|| named(containers));
    let all: Vec<_> = pod.into_iter().chain(containers).collect();
    all.join(" and ")
}

/// In order, none twice.
pub(super) fn unique<T: Ord>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = values.into_iter().collect();
    all.sort();
    all.dedup();
    all
}
