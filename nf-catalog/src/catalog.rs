//! A catalog: packages and services read from files that somebody else has opened.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::template::trial_problems;
use crate::{Answer, DescriptorError, Job, NetworkServiceSpec, NfPackageSpec, Problem, TemplateSyntax, yaml};

/// The apiVersion of every descriptor.
pub const API_VERSION: &str = "gantry.dev/v1";

/// A descriptor file: type, name, content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Descriptor<T> {
    /// `gantry.dev/v1`.
    pub api_version: String,
    /// `NfPackage` or `NetworkService`.
    pub kind: String,
    /// Name and version.
    pub metadata: DescriptorMeta,
    /// Content.
    pub spec: T,
}

/// Name and version of a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptorMeta {
    /// Name.
    pub name: String,
    /// Version; packages only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// Packages by name and version, services by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// Packages.
    pub packages: BTreeMap<(String, String), NfPackageSpec>,
    /// Services.
    pub services: BTreeMap<String, NetworkServiceSpec>,
}

impl Catalog {
    /// Builds a catalog from `(path, text)` of every file below its directory:
    /// `packages/<dir>/package.yaml` with templates beside it, and `services/<name>.yaml`. `render` tries templates out.
    pub fn from_files<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        render: impl Fn(&Job) -> Answer,
    ) -> Result<Self, Vec<DescriptorError>> {
        let files: BTreeMap<&str, &str> = files.into_iter().collect();
        let mut catalog = Self::default();
        let mut errors = misnamed(&files);
        for (path, text) in files.iter().filter(|(path, _)| path.ends_with("/package.yaml")) {
            let directory = path.trim_end_matches("package.yaml");
            let templates = files
                .iter()
                .filter_map(|(p, t)| Some((p.strip_prefix(directory)?, *t)));
            match parse_package(path, text, templates.filter(|(name, _)| *name != "package.yaml")) {
                Ok(spec) => {
                    errors.extend(template_errors(directory, &spec, &render));
                    catalog.insert(path, spec, &mut errors);
                }
                Err(problems) => errors.extend(problems),
            }
        }
        for (path, text) in files
            .iter()
            .filter(|(p, _)| p.starts_with("services/") && p.ends_with(".yaml"))
        {
            match parse_service(path, text, &catalog) {
                Ok((name, spec)) => drop(catalog.services.insert(name, spec)),
                Err(problems) => errors.extend(problems),
            }
        }
        if errors.is_empty() {
            Ok(catalog)
        } else {
            Err(errors)
        }
    }

    fn insert(&mut self, path: &str, spec: NfPackageSpec, errors: &mut Vec<DescriptorError>) {
        let key = (spec.package.clone(), spec.version.clone());
        if self.packages.contains_key(&key) {
            let message = format!("package {} {} is in the catalog twice", key.0, key.1);
            errors.push(whole_file(path, message));
        }
        self.packages.insert(key, spec);
    }

    /// A package; the newest version if none is named.
    pub fn package(&self, name: &str, version: Option<&str>) -> Option<&NfPackageSpec> {
        match version {
            Some(version) => self.packages.get(&(name.to_owned(), version.to_owned())),
            None => self
                .packages
                .values()
                .filter(|p| p.package == name)
                .max_by_key(|p| version_key(&p.version)),
        }
    }
}

/// What is wrong with a package's templates; `directory` is where they are, with a slash at the end.
fn template_errors(
    directory: &str,
    package: &NfPackageSpec,
    render: impl Fn(&Job) -> Answer,
) -> Vec<DescriptorError> {
    let mut problems = package.template_problems();
    if problems.is_empty() {
        for trial in package.trials() {
            for problem in trial_problems(render(&trial)) {
                // What is wrong always is told once.
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
    }
    let at = |problem: crate::TemplateProblem| DescriptorError {
        file: format!("{directory}{}", problem.template),
        line: problem.line as u64,
        column: problem.column as u64,
        message: problem.message,
    };
    problems.into_iter().map(at).collect()
}

fn whole_file(path: &str, message: String) -> DescriptorError {
    DescriptorError {
        file: path.to_owned(),
        line: 1,
        column: 1,
        message,
    }
}

/// Package directories without a descriptor, and services that are none by their name: nobody would ever read them.
fn misnamed(files: &BTreeMap<&str, &str>) -> Vec<DescriptorError> {
    let package = |path: &str| {
        path.strip_prefix("packages/")?
            .split_once('/')
            .map(|(dir, _)| dir.to_owned())
    };
    let directories: BTreeSet<String> = files.keys().filter_map(|path| package(path)).collect();
    let empty = directories
        .iter()
        .map(|dir| format!("packages/{dir}/package.yaml"))
        .filter(|path| !files.contains_key(path.as_str()));
    let empty = empty.map(|path| {
        whole_file(
            &path,
            "is missing: the directory has no descriptor of this name".to_owned(),
        )
    });
    let services = files
        .keys()
        .filter(|path| path.starts_with("services/") && !path.ends_with(".yaml"));
    let services =
        services.map(|path| whole_file(path, "is no service: its name should end with `.yaml`".to_owned()));
    empty.chain(services).collect()
}

fn version_key(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Reads and checks one package descriptor; `templates` are the files beside it.
pub fn parse_package<'a>(
    file: &str,
    text: &str,
    templates: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<NfPackageSpec, Vec<DescriptorError>> {
    let descriptor: Descriptor<NfPackageSpec> = yaml::parse(file, text).map_err(|e| vec![e])?;
    let mut problems = type_problems(&descriptor, "NfPackage");
    let mut spec = descriptor.spec;
    spec.package = descriptor.metadata.name;
    spec.version = descriptor.metadata.version;
    let used: BTreeSet<&str> = spec.config.iter().map(|c| c.template.as_str()).collect();
    spec.templates = templates
        .filter(|(name, _)| used.contains(name))
        .map(|(n, t)| (n.to_owned(), t.to_owned()))
        .collect();
    spec.template_syntax.get_or_insert(TemplateSyntax::Angle);
    problems.extend(spec.descriptor_problems());
    if problems.is_empty() {
        Ok(spec)
    } else {
        Err(yaml::locate(file, text, problems))
    }
}

/// Reads and checks one service descriptor against a catalog's packages; returns its name too.
pub fn parse_service(
    file: &str,
    text: &str,
    catalog: &Catalog,
) -> Result<(String, NetworkServiceSpec), Vec<DescriptorError>> {
    let descriptor: Descriptor<NetworkServiceSpec> = yaml::parse(file, text).map_err(|e| vec![e])?;
    let mut problems = type_problems(&descriptor, "NetworkService");
    problems.extend(
        descriptor
            .spec
            .problems(|name, version| catalog.package(name, Some(version))),
    );
    if problems.is_empty() {
        Ok((descriptor.metadata.name, descriptor.spec))
    } else {
        Err(yaml::locate(file, text, problems))
    }
}

fn type_problems<T>(descriptor: &Descriptor<T>, kind: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut expect = |path: &str, found: &str, wanted: &str| {
        if found != wanted {
            problems.push(Problem {
                path: path.to_owned(),
                message: format!("`{found}` should be `{wanted}`"),
            });
        }
    };
    expect("apiVersion", &descriptor.api_version, API_VERSION);
    expect("kind", &descriptor.kind, kind);
    problems
}
