//! Files from templates: asked for as an action, for rendering takes as long as its templates like; kept for the same package,
//! values and peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::{NetworkFunctionStatus, NfPackage};
use gantry_catalog::{Answer, Bounds, Context, Job, TemplateReason};
use serde::Serialize;

use super::super::meta;
use super::super::world::{Flaw, Key, Objects, Work};

/// All that some files of a function depend on: those that its instances share, or those of one.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub package: Arc<NfPackage>,
    /// The package and version that the function names.
    pub named: (String, String),
    pub context: Context,
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        let same_package = Arc::ptr_eq(&self.package, &other.package) || self.package == other.package;
        same_package && self.named == other.named && self.context == other.context
    }
}

/// Why there is no blueprint.
pub(super) enum Unmade {
    /// Something stands in the way.
    Problem(String),
    /// The templates themselves.
    Flaw(Flaw),
    /// Its files are being rendered.
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

/// Whose files: the function, and its instance if they are those of one.
pub type Whose = (Key, Option<String>);

/// What files of a function are to be made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    /// The function.
    pub key: Key,
    inputs: Inputs,
    bounds: Bounds,
}

impl Rendering {
    /// Whose files.
    pub fn whose(&self) -> Whose {
        whose(&self.key, &self.inputs)
    }

    /// What whoever renders has to do.
    pub fn job(&self) -> Job {
        Job {
            package: self.inputs.package.spec.clone(),
            context: self.inputs.context.clone(),
            traced: false,
            bounds: self.bounds,
        }
    }
}

fn whose(key: &Key, inputs: &Inputs) -> Whose {
    let instance = inputs.context.own.instance.as_ref();
    (key.clone(), instance.map(|own| own.instance.clone()))
}

/// What the templates of each function came to last, failures included.
#[derive(Clone, Debug, Default)]
pub struct Rendered(BTreeMap<Whose, (Inputs, Result<Arc<Made>, Flaw>)>);

impl Rendered {
    /// The answer to what was asked.
    pub(in crate::core) fn put(&mut self, rendering: Rendering, answer: Answer) {
        let whose = rendering.whose();
        let made = made(&rendering.inputs, answer).map(Arc::new);
        self.0.insert(whose, (rendering.inputs, made));
    }

    /// Forgets functions and instances that are gone.
    pub(in crate::core) fn forget_all_but(&mut self, objects: &Objects) {
        self.0.retain(|(function, instance), _| {
            let lives = |name: &String| objects.pods.contains_key(&Key::new(&function.namespace, name));
            objects.functions.contains_key(function) && instance.as_ref().is_none_or(lives)
        });
    }
}

/// The files of a function, or the flaw of its templates.
fn made(inputs: &Inputs, answer: Answer) -> Result<Made, Flaw> {
    let package = &inputs.package.spec;
    let done = answer.map_err(|problems| {
        let (reason, why) = match problems.first() {
            None => ("TemplateInvalid", "nothing was rendered".to_owned()),
            Some(problem) => (reason(problem.reason), problem.to_string()),
        };
        let message = format!("package {}: {why}", package.package);
        Flaw::new(NetworkFunctionStatus::TEMPLATE_FAILURE, reason, message)
    })?;
    let files = package.config.iter().filter_map(|file| {
        let traced = done.get(&file.template)?;
        Some((file.key(), traced.text.clone()))
    });
    let files = files.collect();
    Ok(Made {
        revision: revision(inputs, &files),
        files,
    })
}

fn reason(reason: TemplateReason) -> &'static str {
    match reason {
        TemplateReason::Invalid => "TemplateInvalid",
        TemplateReason::Missing => "TemplateMissing",
        TemplateReason::TooExpensive => "TemplateTooExpensive",
        TemplateReason::TooLarge => "TemplateTooLarge",
    }
}

/// The files of a function as known; if they are not, they are asked for.
pub(super) fn make(work: &mut Work<'_>, key: &Key, inputs: &Inputs) -> Result<Arc<Made>, Unmade> {
    let known = work.rendered.0.get(&whose(key, inputs));
    if let Some((_, made)) = known.filter(|(known, _)| known == inputs) {
        return made.clone().map_err(Unmade::Flaw);
    }
    // Nothing to render: no reason to wait.
    let of_instance = inputs.context.own.instance.is_some();
    let mut files = inputs.package.spec.config.iter();
    if !files.any(|file| file.instance == of_instance) {
        return made(inputs, Ok(BTreeMap::new()))
            .map(Arc::new)
            .map_err(Unmade::Flaw);
    }
    work.renderings.push(Rendering {
        key: key.clone(),
        inputs: inputs.clone(),
        bounds: work.limits.templates,
    });
    Err(Unmade::Later)
}

/// A peer as it counts for the revision: what is only said of it in other words is no change.
#[derive(Serialize)]
struct Wired<'a> {
    name: &'a str,
    vip: &'a str,
    port: u16,
}

fn revision(inputs: &Inputs, files: &BTreeMap<String, String>) -> String {
    let (package, version) = &inputs.named;
    let peers = inputs.context.peers.iter().map(|(need, peer)| {
        let wired = Wired {
            name: &peer.name,
            vip: peer.vip.as_deref().unwrap_or_default(),
            port: peer.port,
        };
        (need.as_str(), wired)
    });
    let peers: BTreeMap<&str, Wired<'_>> = peers.collect();
    let parts = [json(&inputs.context.values), json(&peers), json(files)];
    meta::hash(&[package, version, &parts[0], &parts[1], &parts[2]])[..10].to_owned()
}

fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("plain data with string keys has a JSON form")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Action;
    use super::super::super::lab::Lab;

    const LOOPS: &str = "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}";
    const LONG: &str = "{{ 'x' * 2000000 }}";
    const DEEP: &str = "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}";

    fn files(template: &str) -> serde_json::Value {
        json!({"config": [{"template": "main.cfg", "path": "/etc/main.cfg"}], "templates": {"main.cfg": template}})
    }

    fn bomb(lab: &mut Lab, name: &str, template: &str) {
        lab.publish(name, "1.0.0", files(template));
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
    fn what_is_being_rendered_keeps_nobody_waiting_and_is_not_rendered_again() {
        let mut lab = Lab::new(&["n"]);
        bomb(&mut lab, "slow", LOOPS);
        lab.publish("plain", "1.0.0", json!({}));
        lab.deploy("plain", json!({}));
        lab.renders = false;
        lab.pass();
        lab.pass();
        lab.now_ms += 500;
        lab.obey();
        let asked = lab.pass();
        assert!(
            asked
                .iter()
                .any(|a| matches!(a, Action::Render(r) if r.key.name == "slow"))
        );
        lab.obey();
        lab.pass();
        assert_eq!(lab.function("plain").status.ready_replicas, 1);
        assert!(lab.function("slow").status.conditions.is_empty());
        lab.renders = true;
        lab.settle();
        assert_eq!(lab.function("slow").status.conditions.len(), 1);
        // All is known: nobody need render.
        lab.renders = false;
        assert!(lab.pass().is_empty());
        lab.publish("slow", "1.0.0", files("other\n"));
        assert!(lab.pass().iter().any(|a| matches!(a, Action::Render(_))));
    }
}
