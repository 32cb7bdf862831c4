//! The recipe as written, and the checks that a type cannot express.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{Debian, Problem, Recipe, RecipeConfig, RecipeError, RecipeFile};
use crate::beneath;
use crate::digest::Digest;
use crate::reference::ImageName;

/// Variants that have apt.
const INSTALLS: [&str; 2] = ["minbase", "apt"];
/// Largest file that a recipe may bring along, in bytes.
const SOURCE_LIMIT_BYTES: u64 = 256 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawRecipe {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    metadata: RawMetadata,
    spec: Spanned<RawSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetadata {
    name: Spanned<String>,
    tag: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpec {
    debian: Option<RawDebian>,
    #[serde(default)]
    files: Vec<RawFile>,
    #[serde(default)]
    trim: Vec<Spanned<String>>,
    #[serde(default)]
    keep: Vec<Spanned<String>>,
    #[serde(default)]
    config: Option<Spanned<RecipeConfig>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDebian {
    suite: Spanned<String>,
    variant: Option<Spanned<String>>,
    #[serde(default)]
    packages: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    path: Spanned<String>,
    content: Option<String>,
    source: Option<Spanned<String>>,
    program: Option<Spanned<String>>,
    library: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
}

/// Turns what was written into a recipe, collecting what is wrong.
pub(super) struct Check<'a> {
    pub file: &'a Path,
    pub folder: &'a Path,
    /// Where programs are.
    pub programs: &'a Path,
    pub problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, at: Location, message: impl Into<String>) {
        let (line, column) = (at.line(), at.column());
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            column,
            message: message.into(),
        });
    }

    pub(super) fn recipe(&mut self, raw: &RawRecipe) -> Result<Option<Recipe>, RecipeError> {
        for (field, want) in [(&raw.api_version, "gantry.dev/v1"), (&raw.kind, "ImageRecipe")] {
            if field.value != want {
                self.problem(field.referenced, format!("{:?} must be {want:?}", field.value));
            }
        }
        let full = format!("{}:{}", raw.metadata.name.value, raw.metadata.tag.value);
        let name = ImageName::parse(&full)
            .map_err(|e| self.problem(raw.metadata.name.referenced, e.to_string()))
            .ok();
        let spec = &raw.spec.value;
        if spec.debian.is_none() && spec.files.is_empty() {
            self.problem(
                raw.spec.referenced,
                "the recipe has neither debian nor files: the image would be empty",
            );
        }
        let debian = spec.debian.as_ref().map(|d| self.debian(d));
        let files = self.files(&spec.files)?;
        let trim = self.patterns(&spec.trim);
        let keep = self.patterns(&spec.keep);
        for field in [&spec.trim, &spec.keep] {
            if spec.debian.is_none()
                && let Some(first) = field.first()
            {
                self.problem(
                    first.referenced,
                    "without debian there is nothing to trim or to keep",
                );
            }
        }
        let config = spec.config.as_ref().map(|c| self.config(c)).unwrap_or_default();
        Ok(name.map(|name| Recipe {
            name,
            debian,
            files,
            trim,
            keep,
            config,
        }))
    }

    fn debian(&mut self, raw: &RawDebian) -> Debian {
        let word = |s: &str, more: &str| {
            s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && s.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
        };
        if !word(&raw.suite.value, "-") {
            self.problem(
                raw.suite.referenced,
                format!("{:?} is not a Debian release name", raw.suite.value),
            );
        }
        let variant = raw.variant.as_ref().map_or("minbase", |v| v.value.as_str());
        let known = ["minbase", "apt", "essential", "required"];
        if let Some(v) = raw.variant.as_ref().filter(|_| !known.contains(&variant)) {
            self.problem(
                v.referenced,
                format!("variant {variant:?} must be one of {}", known.join(", ")),
            );
        }
        let mut packages = BTreeSet::new();
        for p in &raw.packages {
            // Debian Policy 5.6.1; an '=version' or '/suite' would be decided by the recipe's suite.
            if p.value.len() < 2 || !word(&p.value, "+-.") {
                self.problem(
                    p.referenced,
                    format!("{:?} is not a Debian package name", p.value),
                );
            }
            packages.insert(p.value.clone());
        }
        if !INSTALLS.contains(&variant)
            && let Some(first) = raw.packages.first()
        {
            self.problem(
                first.referenced,
                format!("variant {variant:?} has no apt to install packages with"),
            );
        }
        let packages = packages.into_iter().collect();
        Debian {
            suite: raw.suite.value.clone(),
            variant: variant.to_owned(),
            packages,
        }
    }

    fn files(&mut self, raw: &[RawFile]) -> Result<Vec<RecipeFile>, RecipeError> {
        let mut files: Vec<RecipeFile> = Vec::new();
        for f in raw {
            let at = f.path.referenced;
            let path = self.absolute(&f.path);
            let usual = if f.program.is_some() { 0o755 } else { 0o644 };
            let mode = f.mode.as_ref().map_or(Some(usual), |m| {
                let bits = u32::from_str_radix(&m.value, 8).ok().filter(|b| *b <= 0o777);
                if bits.is_none() {
                    self.problem(
                        m.referenced,
                        format!("mode {:?} must be octal, at most \"0777\"", m.value),
                    );
                }
                bits
            });
            let content = match (&f.content, &f.source, &f.program, &f.library) {
                (Some(text), None, None, None) => Some(text.clone().into_bytes()),
                (None, Some(source), None, None) => Some(self.source(source)?),
                (None, None, Some(program), None) => self.program(program)?,
                (None, None, None, Some(library)) => self.library(library)?,
                _ => {
                    self.problem(at, "a file has either content, source, program or library");
                    None
                }
            };
            if files.iter().any(|other| Some(&other.path) == path.as_ref()) {
                self.problem(at, format!("{} is listed twice", f.path.value));
            }
            if let (Some(path), Some(mode), Some(content)) = (path, mode, content) {
                files.push(RecipeFile {
                    path,
                    mode,
                    digest: Digest::of(&content).to_string(),
                    content,
                });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn absolute(&mut self, path: &Spanned<String>) -> Option<String> {
        let text = path.value.trim_end_matches('/');
        let ok = text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|p| !p.is_empty() && p != "." && p != ".." && p.len() < 256 && !p.starts_with(".wh."))
        });
        if !ok || text.contains('\0') || text.len() > 4000 {
            let message = format!(
                "{:?} must be an absolute path below / without '.', '..' or '.wh.' names",
                path.value
            );
            self.problem(path.referenced, message);
            return None;
        }
        Some(text.to_owned())
    }

    /// Paths, in whose names one `*` each may stand for any part.
    fn patterns(&mut self, raw: &[Spanned<String>]) -> Vec<String> {
        let mut patterns = Vec::new();
        for pattern in raw {
            if pattern.value.split('/').any(|name| name.matches('*').count() > 1) {
                let message = format!("{:?} has a name with more than one '*'", pattern.value);
                self.problem(pattern.referenced, message);
            }
            patterns.extend(self.absolute(pattern));
        }
        patterns
    }

    fn config(&mut self, c: &Spanned<RecipeConfig>) -> RecipeConfig {
        let bad_env: Vec<_> = c
            .value
            .env
            .iter()
            .filter(|e| e.find('=').is_none_or(|at| at == 0) || e.contains('\0'))
            .collect();
        for e in bad_env {
            self.problem(c.referenced, format!("env {e:?} must be NAME=value"));
        }
        let dir = &c.value.working_dir;
        if !dir.is_empty() && !dir.starts_with('/') {
            self.problem(c.referenced, format!("workingDir {dir:?} must be absolute"));
        }
        c.value.clone()
    }

    /// Reads a source file; it, and every link on the way, must lie in the recipe's folder or below.
    fn source(&self, source: &Spanned<String>) -> Result<Vec<u8>, RecipeError> {
        self.read(self.folder, &source.value)
    }

    /// Reads a program that lies beside those of this installation.
    fn program(&mut self, program: &Spanned<String>) -> Result<Option<Vec<u8>>, RecipeError> {
        if !is_plain(&program.value) {
            let message = format!("{:?} is not the name of a program", program.value);
            self.problem(program.referenced, message);
            return Ok(None);
        }
        self.read(self.programs, &program.value).map(Some)
    }

    /// Reads a shared object that lies there.
    fn library(&mut self, library: &Spanned<String>) -> Result<Option<Vec<u8>>, RecipeError> {
        let name = library
            .value
            .strip_prefix("lib")
            .and_then(|rest| rest.strip_suffix(".so"));
        if !name.is_some_and(is_plain) {
            let message = format!(
                "{:?} is not the name of a shared object, such as libx.so",
                library.value
            );
            self.problem(library.referenced, message);
            return Ok(None);
        }
        self.read(self.programs, &library.value).map(Some)
    }

    fn read(&self, folder: &Path, name: &str) -> Result<Vec<u8>, RecipeError> {
        let shown = folder.join(name);
        let fail = |source| RecipeError::Read {
            recipe: self.file.to_owned(),
            path: shown.clone(),
            source,
        };
        let folder = std::fs::File::open(folder).map_err(fail)?;
        beneath::read_beneath(&folder, Path::new(name), SOURCE_LIMIT_BYTES).map_err(fail)
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !name.is_empty() && name.bytes().all(plain)
}
