//! What the log says of defects: once for each change, not at every pass.

use std::collections::BTreeSet;

use gantry_plan::Violation;

use crate::core::Key;

/// What was said last.
#[derive(Default)]
pub(super) struct Said {
    refused: Vec<String>,
    unwritable: BTreeSet<String>,
    panicked: bool,
}

impl Said {
    /// The planner's answer was refused for these reasons; it was not if there are none.
    pub fn refused(&mut self, violations: &[Violation]) {
        self.panicked = false;
        let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
        if violations == self.refused {
            return;
        }
        if !violations.is_empty() {
            tracing::error!(
                violations = violations.join("; "),
                "the planner's answer breaks its own rules and is refused: the plan in force stays"
            );
        }
        self.refused = violations;
    }

    /// An object has no JSON form.
    pub fn unwritable(&mut self, key: &str, error: &serde_json::Error) {
        if self.unwritable.insert(key.to_owned()) {
            tracing::error!(key, %error, "an object has no JSON form and is not written; all others are");
        }
    }

    /// The decisions ended in a panic (which has said where).
    pub fn failed(&mut self, at: Option<&(&'static str, Key)>, why: &str) {
        if let Some((kind, key)) = at {
            tracing::error!(kind, %key, why, "handling an object failed: it and what it owns are left as they are");
        } else if !std::mem::replace(&mut self.panicked, true) {
            tracing::error!(
                why,
                "deciding failed; nothing is changed, pods run on; trying again with every change"
            );
        }
    }
}
