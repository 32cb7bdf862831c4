//! Pod Security admission: the namespace's labels judge its pods, and warn of templates.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::error::ApiError;
use super::super::selector::Selector;
use super::{Objects, meta};
use crate::kinds::{Kind, at, codec, named};
use crate::podsecurity::{self, Mode, Policy, Subject};

/// Pods of a namespace that a change of its labels is checked against, as in Kubernetes.
const PODS: usize = 3000;

impl Objects {
    /// Refuses a pod (403), or adds warnings. `old` for a change.
    pub(super) async fn admit(
        &self,
        kind: &Kind,
        new: &Value,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if !self.limits.pod_security {
            return Ok(());
        }
        if kind.kind == "Namespace" {
            let found = self.of_existing_pods(new, old).await?;
            warnings.extend(found);
            return Ok(());
        }
        // A pod's spec does not change; a template that does not is no news.
        let Some(pointer) = podsecurity::template_of(kind.kind) else {
            return Ok(());
        };
        if old.is_some_and(|old| kind.kind == "Pod" || at(old, pointer) == at(new, pointer)) {
            return Ok(());
        }
        let (namespace, name) = (meta::text(new, "namespace"), meta::text(new, "name"));
        let row = named("Namespace").expect("the table has Namespace");
        let found = self.get(row, "", namespace).await?;
        let answers = podsecurity::judge(kind.kind, new, at(&found, "/metadata/labels"));
        if let Some(audit) = &answers.audit {
            tracing::warn!(kind = kind.kind, namespace, name, "{audit}");
        }
        if let Some(why) = &answers.refusal {
            return Err(ApiError::forbidden_object(kind, name, why));
        }
        warnings.extend(answers.warning);
        Ok(())
    }

    /// Warnings of pods that are there and that a namespace's new labels would refuse.
    async fn of_existing_pods(&self, new: &Value, old: Option<&Value>) -> Result<Vec<String>, ApiError> {
        let policy = |object| Policy::of(at(object, "/metadata/labels"), Mode::Enforce);
        let (wanted, before) = (policy(new), old.map(policy));
        if before.is_none_or(|before| before == wanted || wanted.level < before.level) {
            return Ok(Vec::new());
        }
        let name = meta::text(new, "name");
        let row = named("Pod").expect("the table has Pod");
        let pods = self.list(row, Some(name), &Selector::default()).await?.items;
        let all = pods.len();
        let mut by_words: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in pods.iter().take(PODS).map(codec::decode) {
            let found = podsecurity::evaluate(&wanted, &Subject::at(&pod, ""));
            let reasons: Vec<_> = found.iter().map(|v| v.reason).collect();
            if !reasons.is_empty() {
                let names = by_words.entry(reasons.join(", ")).or_default();
                names.push(meta::text(&pod, "name").to_owned());
            }
        }
        let mut warnings = Vec::new();
        if all > PODS {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {PODS} of {all} existing pods"
            ));
        }
        if !by_words.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{wanted}\""
            ));
        }
        let mut of_pods: Vec<_> = by_words
            .iter()
            .map(|(words, names)| of_pods(words, names))
            .collect();
        of_pods.sort();
        warnings.extend(of_pods);
        Ok(warnings)
    }
}

fn of_pods(words: &str, names: &[String]) -> String {
    let first = names.iter().min().map_or("", String::as_str);
    match names.len() {
        1 => format!("{first}: {words}"),
        2 => format!("{first} (and 1 other pod): {words}"),
        n => format!("{first} (and {} other pods): {words}", n - 1),
    }
}
