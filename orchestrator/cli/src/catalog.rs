//! The catalog: built in, or a directory.

mod folder;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use gantry_catalog::{Catalog, DescriptorError, Graph, Job, NfPackageSpec, Removed};
use gantry_orchestrator::renderer::Renderer;
use rust_embed::RustEmbed;

use self::folder::Folder;
use crate::args::{CatalogCommand, Output, ServiceCommand};
use crate::{deploy, guard, image, output};

#[derive(RustEmbed)]
#[folder = "../../nf-catalog"]
#[include = "packages/*"]
#[include = "services/*"]
#[include = "images/*"]
#[exclude = "*.md"]
struct BuiltIn;

/// Most bytes of all files of a catalog together: they are read before the first of them is looked at.
const MOST_BYTES: usize = 64 << 20;

/// The files of a catalog by path below its directory.
type Files = BTreeMap<String, String>;

/// Loads and checks a catalog directory, or the built-in catalog.
pub fn load(directory: Option<&Path>) -> Result<Catalog> {
    match directory {
        Some(_) => read(directory, &guard::renderer()),
        // What is built in was tried when it was built in.
        None => read(None, &Renderer::Here),
    }
}

fn read(directory: Option<&Path>, renderer: &Renderer) -> Result<Catalog> {
    let files = files(directory)?;
    let files = files.iter().map(|(p, t)| (p.as_str(), t.as_str()));
    let failed = std::cell::Cell::new(None);
    let render = |job: &Job| {
        renderer.render(job).unwrap_or_else(|error| {
            failed.set(Some(error));
            Ok(Default::default())
        })
    };
    let catalog = Catalog::from_files(files, render).map_err(|errors| broken(&errors));
    match failed.take() {
        Some(error) => Err(error).context("cannot start the process that renders templates"),
        None => catalog,
    }
}

/// Writes the built-in recipes and the files they use into a directory.
pub fn write_recipes(directory: &Path) -> Result<()> {
    for path in BuiltIn::iter().filter(|path| path.starts_with("images/")) {
        let file = BuiltIn::get(&path).with_context(|| format!("{path} is not built in"))?;
        let target = directory.join(&path["images/".len()..]);
        fs::write(&target, file.data).with_context(|| format!("cannot write {}", target.display()))?;
    }
    Ok(())
}

/// Names of the built-in recipes.
pub fn recipe_names() -> Vec<String> {
    BuiltIn::iter()
        .filter_map(|p| Some(p.strip_prefix("images/")?.strip_suffix(".yaml")?.to_owned()))
        .collect()
}

fn broken(errors: &[DescriptorError]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

fn files(directory: Option<&Path>) -> Result<Files> {
    let Some(directory) = directory else {
        return Ok(BuiltIn::iter()
            .filter_map(|path| Some((path.to_string(), text(&path)?)))
            .collect());
    };
    let mut files = Files::new();
    let root = Folder::open(directory)?;
    let packages = root.folder("packages")?.with_context(|| {
        let directory = directory.display();
        format!("cannot read the catalog directory {directory}: it has no packages/")
    })?;
    for name in packages.names(true)? {
        if let Some(package) = packages.folder(&name)? {
            add_files(&mut files, &package, &format!("packages/{name}"))?;
        }
    }
    if let Some(services) = root.folder("services")? {
        add_files(&mut files, &services, "services")?;
    }
    Ok(files)
}

/// All files of a folder, by their paths in the catalog.
fn add_files(files: &mut Files, folder: &Folder, path: &str) -> Result<()> {
    for name in folder.names(false)? {
        let text = folder.read(&name)?;
        let room = MOST_BYTES.checked_sub(files.values().map(String::len).sum::<usize>() + text.len());
        room.with_context(|| format!("the catalog has more than {MOST_BYTES} bytes: {path} is too much"))?;
        files.insert(format!("{path}/{name}"), text);
    }
    Ok(())
}

fn text(path: &str) -> Option<String> {
    String::from_utf8(BuiltIn::get(path)?.data.into_owned()).ok()
}

/// `gantry catalog ...`.
pub fn run(command: &CatalogCommand, output: Output) -> Result<()> {
    match command {
        CatalogCommand::Ls { catalog } => list(&load(catalog.as_deref())?, output),
        CatalogCommand::Show { name, catalog } => show(&load(catalog.as_deref())?, name, output),
        CatalogCommand::Render { name, set, catalog } => {
            render(&load(catalog.as_deref())?, name, set, output)
        }
        CatalogCommand::Verify { directory } => {
            verify(directory, &image::programs()?, &guard::renderer(), output)
        }
    }
}

/// `gantry service ...`.
pub fn service(command: &ServiceCommand, output: Output) -> Result<()> {
    let ServiceCommand::Graph { name, svg, catalog } = command;
    let catalog = load(catalog.as_deref())?;
    let service = catalog.services.get(name);
    let service = service.with_context(|| {
        format!("the catalog has no service `{name}`; `gantry catalog ls` lists those it has")
    })?;
    let graph = Graph::of(&catalog, service);
    output::print(output, &graph, || if *svg { graph.svg() } else { graph.text() })
}

fn verify(directory: &Path, programs: &Path, renderer: &Renderer, output: Output) -> Result<()> {
    let catalog = read(Some(directory), renderer)?;
    let (packages, services) = (catalog.packages.len(), catalog.services.len());
    if packages == 0 {
        bail!(
            "{} has no package: each is a directory below packages/ with a package.yaml",
            directory.display()
        );
    }
    let images = verify_recipes(&Folder::open(directory)?, programs)?;
    let value = serde_json::json!({"packages": packages, "services": services, "images": images});
    output::print(output, &value, || {
        let directory = directory.display();
        format!("{directory}: {packages} packages, {services} services and {images} image recipes are good\n")
    })
}

/// Reads every recipe and the files that it names; how many there are.
fn verify_recipes(catalog: &Folder, programs: &Path) -> Result<usize> {
    let Some(images) = catalog.folder("images")? else {
        return Ok(0);
    };
    let mut count = 0;
    for name in images.names(false)? {
        let path = images.path().join(&name);
        match path.extension().and_then(|e| e.to_str()) {
            Some("yaml") => {
                gantry_images::Recipe::from_text(&images.read(&name)?, &path, programs)?;
                count += 1;
            }
            Some("yml") => bail!(
                "{} is no recipe: its name should end with `.yaml`",
                path.display()
            ),
            _ => {}
        }
    }
    Ok(count)
}

fn list(catalog: &Catalog, output: Output) -> Result<()> {
    let value = serde_json::json!({
        "packages": catalog.packages.values().map(|p| serde_json::json!({
            "name": p.package, "version": p.version, "role": p.role, "program": p.program, "family": p.family,
            "description": p.description,
        })).collect::<Vec<_>>(),
        "services": catalog.services.iter().map(|(name, s)| serde_json::json!({
            "name": name, "description": s.description, "functions": s.functions,
        })).collect::<Vec<_>>(),
    });
    output::print(output, &value, || {
        let packages = catalog.packages.values().map(|p| {
            [
                p.package.clone(),
                "package".to_owned(),
                p.version.clone(),
                p.role.clone(),
                p.program.clone(),
                p.description.clone(),
            ]
        });
        let services = catalog.services.iter().map(|(name, s)| {
            [
                name.clone(),
                "service".to_owned(),
                String::new(),
                format!("{} functions", s.functions.len()),
                String::new(),
                s.description.clone(),
            ]
        });
        output::table(
            ["NAME", "TYPE", "VERSION", "ROLE", "PROGRAM", "DESCRIPTION"],
            packages.chain(services),
        )
    })
}

fn show(catalog: &Catalog, name: &str, output: Output) -> Result<()> {
    let as_yaml = if output == Output::Json {
        Output::Json
    } else {
        Output::Yaml
    };
    if let Some(service) = catalog.services.get(name) {
        return output::print(as_yaml, service, String::new);
    }
    let mut package = package(catalog, name)?.clone();
    package.templates.clear();
    output::print(as_yaml, &package, String::new)
}

fn package<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a NfPackageSpec> {
    let package = catalog.package(name, None);
    package.with_context(|| format!("the catalog has no `{name}`; `gantry catalog ls` lists what it has"))
}

/// The files as a function would get them, with addresses for documentation where real ones come.
fn render(catalog: &Catalog, name: &str, set: &[String], output: Output) -> Result<()> {
    let package = package(catalog, name)?;
    let values = deploy::parse_values(set)?;
    if let Some(unknown) = values.keys().find(|key| !package.values.contains_key(*key)) {
        bail!("{name} has no value `{unknown}`; `gantry catalog show {name}` lists those it has");
    }
    let mut traced = BTreeMap::new();
    for job in package.examples(name, &values) {
        let answer = guard::renderer().render(&job);
        let answer = answer.context("cannot start the process that renders templates")?;
        traced.extend(answer.map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow!("package {name}: {}", problems.join("; "))
        })?);
    }
    let files = package.config.iter();
    let files: Vec<_> = files
        .filter_map(|file| Some((file, traced.get(&file.template)?)))
        .collect();
    let line = |r: &Removed| serde_json::json!({"line": r.line, "text": r.text});
    let value: Vec<_> = (files.iter())
        .map(|(file, traced)| {
            let removed: Vec<_> = traced.removed.iter().map(line).collect();
            serde_json::json!({"path": file.path, "template": file.template, "text": traced.text, "removed": removed})
        })
        .collect();
    output::print(output, &value, || {
        let mut text = String::new();
        for (file, traced) in &files {
            text += &format!("==> {} (from {}) <==\n{}", file.path, file.template, traced.text);
            for removed in &traced.removed {
                text += &format!(
                    "==> not in it: {}:{}: {} <==\n",
                    file.template,
                    removed.line,
                    removed.text.trim()
                );
            }
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn the_built_in_catalog_is_good() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../nf-catalog"));
        // Tests lie in a directory below that of the programs.
        let programs = image::programs().unwrap();
        let programs = programs.parent().unwrap();
        verify(directory, programs, &Renderer::Here, Output::Text).unwrap();
        assert_eq!(
            load(None).unwrap(),
            read(Some(directory), &Renderer::Here).unwrap()
        );
    }

    #[test]
    fn nothing_at_all_and_a_broken_recipe_are_no_good_catalog() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("packages")).unwrap();
        let error = verify(root.path(), root.path(), &Renderer::Here, Output::Text)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no package"), "{error}");
        fs::create_dir(root.path().join("images")).unwrap();
        fs::write(root.path().join("images/x.yaml"), "kind: ImageRecipe\n").unwrap();
        assert!(verify_recipes(&Folder::open(root.path()).unwrap(), root.path()).is_err());
    }

    /// A catalog of one package with a template and a service, in a folder of its own.
    fn small(root: &Path) {
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let echo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/echo/packages/echo");
        for name in ["package.yaml", "greeting.txt"] {
            let text = fs::read_to_string(Path::new(echo).join(name)).unwrap();
            write(&format!("packages/echo/{name}"), &text);
        }
        write("packages/README.md", "for people");
        write("images/NOTES.md", "for people");
    }

    /// In the place of each part of a catalog what leads out of it, never ends, or is too large.
    #[test]
    fn nothing_that_leads_out_of_a_catalog_is_read() {
        let outside = tempfile::tempdir().unwrap();
        small(outside.path());
        let secret = outside.path().join("packages/echo/greeting.txt");
        for place in [
            "packages",
            "packages/echo",
            "packages/echo/package.yaml",
            "packages/echo/greeting.txt",
            "services",
            "services/x.yaml",
            "images",
            "images/x.yaml",
        ] {
            let file = place.contains('.');
            for damage in ["a link", "a relative link", "a pipe", "large"] {
                if damage == "large" && !file {
                    continue;
                }
                let root = tempfile::tempdir().unwrap();
                small(root.path());
                verify(root.path(), root.path(), &Renderer::Here, Output::Text).unwrap();
                let path = root.path().join(place);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match fs::symlink_metadata(&path) {
                    Ok(found) if found.is_dir() => fs::rename(&path, root.path().join("aside")).unwrap(),
                    Ok(_) => fs::remove_file(&path).unwrap(),
                    Err(_) => {}
                }
                let target = if file {
                    secret.clone()
                } else {
                    outside.path().join(place)
                };
                match damage {
                    "a link" => symlink(target, &path).unwrap(),
                    "a relative link" => {
                        fs::write(root.path().join("inside"), "hello").unwrap();
                        let up = "../".repeat(place.matches('/').count());
                        symlink(format!("{up}inside"), &path).unwrap();
                    }
                    "a pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
                    _ => File::create(&path).unwrap().set_len(2 << 30).unwrap(),
                }
                let error = verify(root.path(), root.path(), &Renderer::Here, Output::Text).unwrap_err();
                let said = format!("{error:#}");
                assert!(said.contains(path.to_str().unwrap()), "{place} {damage}: {said}");
            }
        }
        // Whoever names the catalog itself may name a link.
        let link = outside.path().join("link");
        symlink(outside.path(), &link).unwrap();
        verify(&link, outside.path(), &Renderer::Here, Output::Text).unwrap();
    }
}
