//! Templates of configuration files: how their tags are marked, whether they can be rendered, and what with.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::NfPackageSpec;
use crate::context::Context;
use crate::render::{Answer, Bounds, Job};
use crate::trace::{self, Tag};

/// Marks of tags in templates. Neither has comments: what a comment hides, nobody misses until it is too late, and its marks
/// occur in configuration languages (`{#` does in kamailio's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateSyntax {
    /// `<%= values.x %>` and `<% if values.x %>`: marks that no usual configuration language has.
    Angle,
    /// `{{ values.x }}` and `{% if values.x %}`, as Jinja and Helm have them.
    Jinja,
}

/// Marks of comments that no text has: Unicode's private use.
const NO_COMMENT: (&str, &str) = ("\u{f8f0}\u{f8f1}", "\u{f8f1}\u{f8f0}");
/// Bytes of one tag. The parser goes as deep as a tag has operators, and a stack has an end.
const TAG_BYTES: usize = 1024;
/// `elif`s of one template: each is within the one before.
const ELIFS: usize = 100;
/// Roots of what templates name: a `{{` before one of them is meant as a tag.
const ROOTS: [&str; 3] = ["values", "peers", "self"];
/// First words of statements: a `{%` before one of them is meant as a tag.
const STATEMENTS: [&str; 10] = [
    "if", "elif", "else", "endif", "for", "endfor", "set", "with", "macro", "raw",
];

impl TemplateSyntax {
    /// Begin and end of what is replaced by a value, and of statements.
    pub(crate) fn marks(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Angle => [("<%=", "%>"), ("<%", "%>")],
            Self::Jinja => [("{{", "}}"), ("{%", "%}")],
        }
    }

    /// What renders templates of this syntax: strict about names, as text, ending as the template does.
    pub fn environment(self) -> Environment<'static> {
        let [(value, value_end), (statement, statement_end)] = self.marks();
        let syntax = SyntaxConfig::builder()
            .variable_delimiters(value, value_end)
            .block_delimiters(statement, statement_end)
            .comment_delimiters(NO_COMMENT.0, NO_COMMENT.1)
            .keep_trailing_newline(true)
            .build()
            .expect("these marks do not clash");
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(syntax);
        // Configuration is not HTML, whatever the file is called.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment
    }
}

/// What kind of fault a template has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateReason {
    /// It is not right in itself, or for these values.
    Invalid,
    /// The package names it and does not have it.
    Missing,
    /// It takes too many steps, too much CPU time or memory.
    TooExpensive,
    /// What it makes is too large.
    TooLarge,
}

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("template `{template}`, line {line}, column {column}: {message}")]
pub struct TemplateProblem {
    /// What kind of fault.
    pub reason: TemplateReason,
    /// Name of the template.
    pub template: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl TemplateProblem {
    fn at(template: &str, text: &str, offset: usize, message: String) -> Self {
        let before = text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            reason: TemplateReason::Invalid,
            template: template.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }

    /// A fault of the template as a whole.
    pub fn whole(reason: TemplateReason, template: &str, message: String) -> Self {
        Self {
            reason,
            template: template.to_owned(),
            line: 1,
            column: 1,
            message,
        }
    }

    pub(crate) fn of(template: &str, text: &str, error: &Error, bounds: &Bounds) -> Self {
        let (reason, message) = match error.kind() {
            ErrorKind::OutOfFuel => (TemplateReason::TooExpensive, bounds.too_many_steps()),
            ErrorKind::WriteFailure => (TemplateReason::TooLarge, bounds.too_many_bytes()),
            _ => return Self::invalid(template, text, error),
        };
        Self {
            line: error.line().unwrap_or(1),
            ..Self::whole(reason, template, message)
        }
    }

    fn invalid(template: &str, text: &str, error: &Error) -> Self {
        let what = error
            .detail()
            .map_or_else(|| error.kind().to_string(), str::to_owned);
        match error.range() {
            Some(range) => {
                let source = text
                    .get(range.clone())
                    .filter(|s| !s.is_empty() && !s.contains('\n'));
                let source = source.map(|s| format!(": `{s}`")).unwrap_or_default();
                Self::at(template, text, range.start, format!("{what}{source}"))
            }
            None => Self {
                line: error.line().unwrap_or(1),
                ..Self::whole(TemplateReason::Invalid, template, what)
            },
        }
    }
}

impl NfPackageSpec {
    /// How tags are marked in this package's templates.
    pub fn syntax(&self) -> TemplateSyntax {
        self.template_syntax.unwrap_or(TemplateSyntax::Jinja)
    }

    /// What would keep a template from being rendered, or would make it lose text, whatever the values are.
    pub fn template_problems(&self) -> Vec<TemplateProblem> {
        let environment = self.syntax().environment();
        let mut problems = Vec::new();
        for (name, text) in &self.templates {
            let fault = fault(self.syntax(), name, text);
            let broken = || {
                let error = environment.template_from_named_str(name, text).err()?;
                Some(TemplateProblem::invalid(name, text, &error))
            };
            problems.extend(fault.or_else(broken));
        }
        problems
    }

    /// Trials with the package's own values and with peers that do not exist: as usual, and in the extreme.
    pub(crate) fn trials(&self) -> Vec<Job> {
        let usual = self.example_contexts("name", &BTreeMap::new());
        let all = usual.into_iter().chain(self.extreme_contexts());
        all.map(|context| self.job(context)).collect()
    }

    /// What `catalog render` shows, for a function of this name with some values of its own.
    pub fn examples(&self, name: &str, values: &BTreeMap<String, Value>) -> Vec<Job> {
        let contexts = self.example_contexts(name, values).into_iter();
        contexts.map(|context| self.job(context)).collect()
    }

    fn job(&self, context: Context) -> Job {
        Job {
            package: self.clone(),
            context,
            traced: true,
            bounds: Bounds::default(),
        }
    }
}

/// What a trial found to be wrong.
pub(crate) fn trial_problems(answer: Answer) -> Vec<TemplateProblem> {
    let lost = |(name, traced): (String, trace::Traced)| {
        let line = traced.removed.iter().find(|line| !line.conditional)?;
        let message = "this line stands under no condition, and is not in what is rendered".to_owned();
        Some(TemplateProblem {
            line: line.line,
            ..TemplateProblem::whole(TemplateReason::Invalid, &name, message)
        })
    };
    match answer {
        Ok(done) => done.into_iter().filter_map(lost).collect(),
        Err(problems) => problems,
    }
}

/// What is wrong with the tags of a template, before anybody parses it.
pub fn fault(syntax: TemplateSyntax, name: &str, text: &str) -> Option<TemplateProblem> {
    let tags = trace::tags(syntax, text);
    endless(&tags, name, text).or_else(|| clash(syntax, &tags, name, text))
}

/// Tags that would take the parser too deep.
fn endless(tags: &[Tag], name: &str, text: &str) -> Option<TemplateProblem> {
    let at = |tag: &Tag, message| TemplateProblem {
        reason: TemplateReason::TooExpensive,
        ..TemplateProblem::at(name, text, tag.range.start, message)
    };
    let long = tags.iter().find(|tag| tag.range.len() > TAG_BYTES);
    let long = long.map(|tag| at(tag, format!("the tag has more than {TAG_BYTES} bytes")));
    let elif = tags.iter().filter(|tag| tag.word == "elif").nth(ELIFS);
    long.or_else(|| elif.map(|tag| at(tag, format!("the template has more than {ELIFS} `elif`s"))))
}

/// Text that looks like a tag and is none, or would be none and hides text.
fn clash(syntax: TemplateSyntax, tags: &[Tag], name: &str, text: &str) -> Option<TemplateProblem> {
    let free = |at: &usize| {
        let next = tags.partition_point(|tag: &Tag| tag.range.end <= *at);
        tags.get(next).is_none_or(|tag| !tag.range.contains(at))
    };
    let find = |mark: &str| text.match_indices(mark).map(|(at, _)| at).find(free);
    match syntax {
        TemplateSyntax::Jinja => find("{#").map(|at| {
            let message = "`{#` begins a comment in jinja, which would hide what follows; without `templateSyntax` tags are \
                           written `<%= ... %>`, and this is text like any other";
            TemplateProblem::at(name, text, at, message.to_owned())
        }),
        TemplateSyntax::Angle => {
            let foreign = |(mark, words): (&str, &[&str])| {
                let meant = |at: &usize| {
                    let rest = text[at + mark.len()..].trim_start_matches(['-', '+', ' ', '\t']);
                    let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
                    free(at) && word.is_some_and(|word| words.contains(&word))
                };
                text.match_indices(mark).map(|(at, _)| at).find(meant)
            };
            let at = [("{{", &ROOTS[..]), ("{%", &STATEMENTS[..])].into_iter().filter_map(foreign).min()?;
            let message = "this is a tag of jinja, and would stay as it is: write `<%= ... %>` and `<% ... %>`, or say \
                           `templateSyntax: jinja` under spec";
            Some(TemplateProblem::at(name, text, at, message.to_owned()))
        }
    }
}
