//! Rendering all templates of a package under bounds: data in, data out, so that a process of its own can do it.
//!
//! Steps and bytes are counted here. Memory and CPU time are not: one step may double a text or sort a million items. Whoever
//! runs a job that others wrote does so where the system bounds both.

use std::collections::BTreeMap;
use std::io::{self, Write};

use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use crate::template::fault;
use crate::trace::{self, Traced};
use crate::{Context, NfPackageSpec, TemplateProblem, TemplateReason};

/// Frames (loops, includes, macros) in one another; real configurations have a handful.
const DEPTH: usize = 32;
/// What marks may add to a text, at most, as a factor: each is before at least one character.
const MARKED: usize = 16;

/// How much the templates of one function may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Instructions of all templates together (a loop's body counts each time).
    pub steps: u64,
    /// Bytes of all files together: what a ConfigMap may hold.
    pub bytes: usize,
    /// Memory in bytes of the process that renders; `None`: as much as there is.
    pub memory_bytes: Option<u64>,
    /// Its CPU time in seconds; `None`: as long as it takes.
    pub cpu_seconds: Option<u64>,
}

impl Bounds {
    /// No bounds at all.
    pub const NONE: Self = Self {
        steps: u64::MAX >> 1,
        bytes: usize::MAX / MARKED,
        memory_bytes: None,
        cpu_seconds: None,
    };
}

impl Default for Bounds {
    /// Real packages take some thousand steps, and milliseconds.
    fn default() -> Self {
        Self {
            steps: 200_000,
            bytes: 1 << 20,
            memory_bytes: Some(128 << 20),
            cpu_seconds: Some(2),
        }
    }
}

/// All files of one function, to be rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The package with its templates.
    pub package: NfPackageSpec,
    /// What templates name. With an instance in it the files of that instance are rendered, and otherwise those that all share.
    pub context: Context,
    /// Also find the lines that are not in the result.
    pub traced: bool,
    /// How much it may take.
    pub bounds: Bounds,
}

/// Each template's result by its name, or what is wrong.
pub type Answer = Result<BTreeMap<String, Traced>, Vec<TemplateProblem>>;

impl Job {
    /// Does it. `at` is told the name of each template before it is looked at.
    pub fn run(&self, mut at: impl FnMut(&str)) -> Answer {
        let mut left = self.bounds;
        let mut done: BTreeMap<String, Traced> = BTreeMap::new();
        let mut problems = Vec::new();
        let of_instance = self.context.own.instance.is_some();
        for file in self
            .package
            .config
            .iter()
            .filter(|file| file.instance == of_instance)
        {
            let name = &file.template;
            at(name);
            let known = done.get(name);
            let made = match known {
                Some(known) => left.take(&self.bounds, name, known.text.len()).map(|()| None),
                None => self.one(name, &mut left).map(Some),
            };
            match made {
                Ok(traced) => done.extend(traced.map(|traced| (name.clone(), traced))),
                Err(problem) => {
                    let over = problem.reason != TemplateReason::Invalid;
                    problems.push(problem);
                    if over {
                        break;
                    }
                }
            }
        }
        if problems.is_empty() {
            Ok(done)
        } else {
            Err(problems)
        }
    }

    fn one(&self, name: &str, left: &mut Bounds) -> Result<Traced, TemplateProblem> {
        let syntax = self.package.syntax();
        let text = self.package.templates.get(name).ok_or_else(|| {
            let message = "the package does not have it".to_owned();
            TemplateProblem::whole(TemplateReason::Missing, name, message)
        })?;
        if let Some(fault) = fault(syntax, name, text) {
            return Err(fault);
        }
        let mut marks = *left;
        let rendered = self.render(name, text, left)?;
        let mut removed = Vec::new();
        if self.traced {
            // With marks in it the same goes well as without.
            marks.bytes = marks.bytes.saturating_mul(MARKED);
            let marked = self.render(name, &trace::mark(syntax, text), &mut marks)?;
            removed = trace::removed(syntax, text, &marked);
        }
        Ok(Traced {
            removed,
            text: rendered,
        })
    }

    /// One text; `left` loses what it takes.
    fn render(&self, name: &str, text: &str, left: &mut Bounds) -> Result<String, TemplateProblem> {
        let failed = |error: &minijinja::Error| TemplateProblem::of(name, text, error, &self.bounds);
        let mut environment = self.package.syntax().environment();
        environment.set_recursion_limit(DEPTH);
        environment.set_fuel(Some(left.steps));
        let template = environment.template_from_named_str(name, text);
        let template = template.map_err(|e| failed(&e))?;
        let mut out = Bounded {
            bytes: Vec::new(),
            left: left.bytes,
        };
        let rendered = template.render_captured_to(Serde(&self.context), &mut out);
        let levels = rendered.map(|captured| captured.state().fuel_levels());
        let (used, _) = levels.map_err(|e| failed(&e))?.unwrap_or_default();
        left.steps = left.steps.saturating_sub(used);
        left.bytes = out.left;
        String::from_utf8(out.bytes)
            .map_err(|e| TemplateProblem::whole(TemplateReason::Invalid, name, e.to_string()))
    }
}

impl Bounds {
    /// So many bytes more.
    fn take(&mut self, all: &Self, name: &str, bytes: usize) -> Result<(), TemplateProblem> {
        let left = self.bytes.checked_sub(bytes);
        let too_large = || TemplateProblem::whole(TemplateReason::TooLarge, name, all.too_many_bytes());
        self.bytes = left.ok_or_else(too_large)?;
        Ok(())
    }

    pub(crate) fn too_many_bytes(&self) -> String {
        format!(
            "the function's files are larger than {} bytes together",
            self.bytes
        )
    }

    pub(crate) fn too_many_steps(&self) -> String {
        format!("it takes more than {} steps: loop over less", self.steps)
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
