use super::*;

const GOOD: &str = r#"apiVersion: gantry.dev/v1
kind: ImageRecipe
metadata: {name: demo, tag: 5.6.3}
spec:
  debian: {suite: bookworm, packages: [kamailio, bash, kamailio]}
  files:
    - {path: /etc/demo, content: "x", mode: "0600"}
    - {path: /bin/run, source: sub/run.sh, mode: "0755"}
  trim: [/usr/share/doc/]
  keep: ["/usr/lib/*/perl"]
  config: {entrypoint: [/bin/run], env: ["A=b"], user: nobody, workingDir: /tmp}
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/run.sh"), "#!/bin/sh\n").unwrap();
    std::fs::create_dir(dir.path().join("programs")).unwrap();
    std::fs::write(dir.path().join("programs/lab-x"), "program").unwrap();
    std::fs::write(dir.path().join("programs/libx_y.so"), "library").unwrap();
    dir
}

fn parse(text: &str) -> Result<Recipe, RecipeError> {
    let dir = folder();
    Recipe::parse(
        text,
        Path::new("demo.yaml"),
        dir.path(),
        &dir.path().join("programs"),
    )
}

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    parse(&GOOD.replacen(from, to, 1)).expect_err(to).to_string()
}

#[test]
fn a_good_recipe() {
    let r = parse(GOOD).unwrap();
    assert_eq!(r.name.as_str(), "demo:5.6.3");
    assert_eq!(r.debian.as_ref().unwrap().packages, ["bash", "kamailio"]);
    assert_eq!(r.debian.as_ref().unwrap().variant, "minbase");
    let files: Vec<_> = r.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
    assert_eq!(files, [("/bin/run", 0o755), ("/etc/demo", 0o600)]);
    assert_eq!(r.trim, ["/usr/share/doc"]);
    assert_eq!(r.keep, ["/usr/lib/*/perl"]);
    assert_eq!(r.config.working_dir, "/tmp");
}

#[test]
fn programs_and_libraries_come_from_beside_those_of_the_installation() {
    let text = GOOD.replace(
        "{path: /bin/run, source: sub/run.sh, mode: \"0755\"}",
        "{path: /usr/bin/lab-x, program: lab-x}",
    );
    let recipe = parse(&text).unwrap();
    let file = recipe.files.iter().find(|f| f.path == "/usr/bin/lab-x").unwrap();
    assert_eq!((file.mode, file.content.as_slice()), (0o755, &b"program"[..]));
    let missing = parse(&text.replace("program: lab-x", "program: lab-y")).unwrap_err();
    assert!(missing.to_string().contains("beside `gantry`"), "{missing}");
    let recipe = parse(&text.replace("program: lab-x", "library: libx_y.so")).unwrap();
    let file = recipe.files.iter().find(|f| f.path == "/usr/bin/lab-x").unwrap();
    assert_eq!((file.mode, file.content.as_slice()), (0o644, &b"library"[..]));
}

#[test]
fn the_hash_follows_content_not_form() {
    let hash = |text: &str| parse(text).unwrap().hash();
    assert_eq!(
        hash(GOOD),
        hash(&GOOD.replace("[kamailio, bash, kamailio]", "[ bash, kamailio ]"))
    );
    assert_ne!(hash(GOOD), hash(&GOOD.replace("A=b", "A=c")));
    assert_ne!(
        hash(GOOD),
        hash(&GOOD.replace("content: \"x\"", "content: \"y\""))
    );
}

#[test]
fn every_mistake_has_its_place() {
    let cases = [
        ("ImageRecipe", "Recipe", "demo.yaml:2:7: "),
        ("name: demo", "name: Demo", "demo.yaml:3:18: "),
        ("suite: bookworm", "suite: ../x", "demo.yaml:5:19: "),
        ("bash", "-oAPT::x", "demo.yaml:5:50: "),
        ("/etc/demo", "/etc/../x", "demo.yaml:7:14: "),
        ("\"0600\"", "\"4755\"", "demo.yaml:7:45: "),
        ("content: \"x\"", "colour: red", "demo.yaml:7:"),
        (
            ", source: sub/run.sh",
            "",
            "either content, source, program or library",
        ),
        (
            "source: sub/run.sh",
            "program: ../lab-x",
            "is not the name of a program",
        ),
        (
            "source: sub/run.sh",
            "library: ../libx_y.so",
            "is not the name of a shared object",
        ),
        (
            "source: sub/run.sh",
            "library: x_y",
            "is not the name of a shared object",
        ),
        ("/usr/lib/*/perl", "/usr/*lib*/perl", "demo.yaml:10:10: "),
        (
            "suite: bookworm",
            "suite: bookworm, variant: essential",
            "has no apt",
        ),
        ("\"A=b\"", "\"A\"", "NAME=value"),
        ("/etc/demo", "/bin/run", "twice"),
        ("tag: 5.6.3", "tag: [1]", "demo.yaml:3:"),
    ];
    for (from, to, expected) in cases {
        let message = refused(from, to);
        assert!(message.contains(expected), "{to}: {message}");
    }
    let unknown = refused("  trim:", "  trimm:");
    assert!(
        unknown.starts_with("demo.yaml:9:3: ") && unknown.contains("trimm"),
        "{unknown}"
    );
    let two = refused("gantry.dev/v1\nkind: ImageRecipe", "v1\nkind: X");
    assert_eq!(two.lines().count(), 2, "{two}");
}

#[test]
fn sources_do_not_leave_the_folder() {
    let dir = folder();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("sub/link")).unwrap();
    for path in ["../x", "/etc/passwd", "sub/link", "sub", "missing"] {
        let text = GOOD.replace("sub/run.sh", path);
        let err = Recipe::parse(&text, Path::new("demo.yaml"), dir.path(), dir.path()).unwrap_err();
        assert!(matches!(err, RecipeError::Read { .. }), "{path}: {err}");
    }
}
