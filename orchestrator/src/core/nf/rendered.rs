//! Files from templates: bounded, and made once for the same package, values and peers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_api::{NetworkFunction, NfPackage};
use gantry_catalog::template;
use minijinja::value::Serde;
use minijinja::{ErrorKind, context};
use serde::Serialize;
use serde_json::Value;

use super::super::limits::Limits;
use super::super::meta;
use super::super::world::{Flaw, Key, Work};
use super::render::file_key;

/// Condition of a function whose templates cannot be rendered.
const CONDITION: &str = "TemplateFailure";
/// Frames (loops, includes, macros) in one another; real configurations have a handful.
const DEPTH: usize = 32;

/// Another function as templates see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Peer {
    pub name: String,
    pub vip: String,
    pub port: u16,
}

/// All that the files of a function depend on.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub package: Arc<NfPackage>,
    /// The package and version that the function names.
    pub named: (String, String),
    pub vip: String,
    pub values: BTreeMap<String, Value>,
    pub peers: BTreeMap<String, Peer>,
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        let same_package = Arc::ptr_eq(&self.package, &other.package) || self.package == other.package;
        same_package
            && self.named == other.named
            && self.vip == other.vip
            && self.values == other.values
            && self.peers == other.peers
    }
}

/// Why there is no blueprint.
pub(super) enum Unmade {
    /// Something stands in the way.
    Problem(String),
    /// The templates themselves.
    Flaw(Flaw),
    /// This pass has rendered enough: a later one does it.
    Later,
}

impl From<String> for Unmade {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// Files and the revision that they make.
#[derive(Debug, PartialEq)]
pub(super) struct Made {
    pub revision: String,
    /// File key to text.
    pub files: BTreeMap<String, String>,
}

/// What the templates of each function came to last, failures included.
#[derive(Clone, Debug, Default)]
pub struct Rendered(Arc<Mutex<BTreeMap<Key, Known>>>);

type Known = (Inputs, Result<Arc<Made>, Flaw>);

impl Rendered {
    fn known(&self, key: &Key, inputs: &Inputs) -> Option<Result<Arc<Made>, Flaw>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, made) = all.get(key).filter(|(known, _)| known == inputs)?;
        Some(made.clone())
    }

    fn keep(&self, key: &Key, inputs: &Inputs, made: Result<Arc<Made>, Flaw>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key.clone(), (inputs.clone(), made));
    }

    /// Forgets functions that are gone.
    pub(super) fn forget_all_but(&self, functions: &BTreeMap<Key, Arc<NetworkFunction>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, _| functions.contains_key(key));
    }
}

/// The files of a function, as known or made now.
pub(super) fn make(work: &mut Work<'_>, key: &Key, inputs: &Inputs) -> Result<Arc<Made>, Unmade> {
    if let Some(known) = work.rendered.known(key, inputs) {
        return known.map_err(Unmade::Flaw);
    }
    if work.fuel < work.limits.template_fuel.min(work.limits.fuel_a_pass) {
        return Err(Unmade::Later);
    }
    let mut fuel = work.limits.template_fuel;
    let files = render(inputs, key, work.limits, &mut fuel);
    work.fuel = work.fuel.saturating_sub(work.limits.template_fuel - fuel);
    let made = files.map(|files| {
        Arc::new(Made {
            revision: revision(inputs, &files),
            files,
        })
    });
    work.rendered.keep(key, inputs, made.clone());
    made.map_err(Unmade::Flaw)
}

fn revision(inputs: &Inputs, files: &BTreeMap<String, String>) -> String {
    let (package, version) = &inputs.named;
    let parts = [json(&inputs.values), json(&inputs.peers), json(files)];
    meta::hash(&[package, version, &parts[0], &parts[1], &parts[2]])[..10].to_owned()
}

/// All files; `fuel` loses what they take.
fn render(
    inputs: &Inputs,
    key: &Key,
    limits: &Limits,
    fuel: &mut u64,
) -> Result<BTreeMap<String, String>, Flaw> {
    let package = &inputs.package.spec;
    let mut environment = package.syntax().environment();
    environment.set_recursion_limit(DEPTH);
    let own = context! { name => key.name.as_str(), namespace => key.namespace.as_str(), vip => inputs.vip.as_str() };
    let context = BTreeMap::from([
        ("values", minijinja::Value::from(Serde(&inputs.values))),
        ("peers", minijinja::Value::from(Serde(&inputs.peers))),
        ("self", own),
    ]);
    let mut files = BTreeMap::new();
    let mut left_bytes = limits.rendered_bytes;
    for file in &package.config {
        let failed = |reason, what: String| {
            let message = format!(
                "template `{}` of package {}: {what}",
                file.template, package.package
            );
            Flaw::new(CONDITION, reason, message)
        };
        let text = package.templates.get(&file.template);
        let text =
            text.ok_or_else(|| failed("TemplateMissing", "the package does not have it".to_owned()))?;
        if let Some(clash) = template::clash(package.syntax(), &file.template, text) {
            return Err(failed("TemplateInvalid", clash.to_string()));
        }
        environment.set_fuel(Some(*fuel));
        let template = environment
            .template_from_named_str(&file.template, text)
            .map_err(|e| failed("TemplateInvalid", format!("{e:#}")))?;
        let mut out = Bounded {
            bytes: Vec::new(),
            left: left_bytes,
        };
        let rendered = template.render_captured_to(&context, &mut out);
        let levels = rendered.map(|captured| captured.state().fuel_levels());
        let (used, _) = levels
            .map_err(|e| {
                *fuel = 0;
                let (reason, what) = why(&e, limits);
                failed(reason, what)
            })?
            .unwrap_or_default();
        *fuel = fuel.saturating_sub(used);
        left_bytes = out.left;
        let text = String::from_utf8(out.bytes).map_err(|e| failed("TemplateInvalid", e.to_string()))?;
        files.insert(file_key(&file.path), text);
    }
    Ok(files)
}

/// Reason and words of a failure.
fn why(error: &minijinja::Error, limits: &Limits) -> (&'static str, String) {
    let line = error
        .line()
        .map_or_else(String::new, |line| format!(" (line {line})"));
    match error.kind() {
        ErrorKind::OutOfFuel => {
            let most = limits.template_fuel;
            let what = format!("it takes more than {most} steps: loop over less{line}");
            ("TemplateTooExpensive", what)
        }
        ErrorKind::WriteFailure => {
            let most = limits.rendered_bytes;
            let what = format!("the function's files are larger than {most} bytes together{line}");
            ("TemplateTooLarge", what)
        }
        _ => ("TemplateInvalid", format!("{error:#}")),
    }
}

/// Takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("plain data with string keys has a JSON form")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::lab::Lab;

    const LOOPS: &str = "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}";
    const LONG: &str = "{{ 'x' * 2000000 }}";
    const DEEP: &str = "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}";

    fn bomb(lab: &mut Lab, name: &str, template: &str) {
        let files = json!({"config": [{"template": "main.cfg", "path": "/etc/main.cfg"}], "templates": {"main.cfg": template}});
        lab.publish(name, "1.0.0", files);
        lab.deploy(name, json!({}));
    }

    #[test]
    fn a_template_that_takes_too_much_is_said_on_its_function_and_stops_no_other() {
        let mut lab = Lab::new(&["n"]);
        let cases = [
            ("loops", LOOPS, "TemplateTooExpensive"),
            ("long", LONG, "TemplateTooLarge"),
            ("deep", DEEP, "TemplateInvalid"),
            ("typo", "{{ nobody }}", "TemplateInvalid"),
        ];
        for (name, template, _) in cases {
            bomb(&mut lab, name, template);
        }
        bomb(&mut lab, "good", "vip={{ self.vip }}\n");
        lab.settle();
        lab.run_for(2_000);
        for (name, _, reason) in cases {
            let status = &lab.function(name).status;
            let condition = status
                .conditions
                .first()
                .unwrap_or_else(|| panic!("{name}: {status:?}"));
            assert_eq!(
                (&*condition.type_, &*condition.reason),
                ("TemplateFailure", reason),
                "{name}"
            );
            assert!(condition.message.contains("main.cfg"), "{}", condition.message);
            assert_eq!(status.replicas, 0);
        }
        assert_eq!(lab.function("good").status.ready_replicas, 1);
    }

    #[test]
    fn what_was_rendered_is_not_rendered_again_and_bombs_take_turns() {
        let mut lab = Lab::new(&["n"]);
        for number in 0..12 {
            bomb(&mut lab, &format!("bomb-{number:02}"), LOOPS);
        }
        bomb(&mut lab, "zgood", "vip={{ self.vip }}\n");
        lab.world.limits.fuel_a_pass = lab.world.limits.template_fuel * 5;
        lab.pass();
        let conditions = |lab: &Lab| {
            let functions = lab.world.objects.functions.values();
            functions.filter(|f| !f.status.conditions.is_empty()).count()
        };
        assert_eq!(conditions(&lab), 5);
        lab.settle();
        assert_eq!(conditions(&lab), 12);
        // Nothing has to be rendered any more: not even without fuel does anything change.
        lab.world.limits.fuel_a_pass = 0;
        assert!(lab.pass().is_empty());
        lab.run_for(2_000);
        assert_eq!(lab.function("zgood").status.ready_replicas, 1);
    }
}
