//! Templates of configuration files: whether they can be rendered at all.

use minijinja::Environment;

use crate::{DescriptorError, NfPackageSpec};

/// What is wrong with the syntax of a package's templates; `directory` is where they are, with a slash at the end.
pub(crate) fn syntax_errors(directory: &str, package: &NfPackageSpec) -> Vec<DescriptorError> {
    let environment = Environment::new();
    let broken = package.templates.iter().filter_map(|(name, text)| {
        let error = environment.template_from_named_str(name, text).err()?;
        Some(DescriptorError {
            file: format!("{directory}{name}"),
            line: error.line().map_or(1, |line| line as u64),
            column: 1,
            message: error
                .detail()
                .map_or_else(|| error.kind().to_string(), str::to_owned),
        })
    });
    broken.collect()
}
