//! Builds: reproducible, cached, and with a real Debian where the machine can.

mod common;

use std::path::Path;

use common::root_or_skip;
use gantry_images::{BuildEvent, BuildOptions, BuildOutcome, ImageStore, build};

const FILES: &str = r#"apiVersion: gantry.dev/v1
kind: ImageRecipe
metadata: {name: demo, tag: "1"}
spec:
  files:
    - {path: /etc/demo/a, content: "a", mode: "0600"}
    - {path: /srv/b, source: b}
  config: {entrypoint: [/srv/b], env: ["X=1"], user: "5:6", workingDir: /srv}
"#;

fn run(recipe: &Path, store: &ImageStore, no_cache: bool) -> BuildOutcome {
    let mut log = Vec::new();
    let options = BuildOptions {
        no_cache,
        ..BuildOptions::default()
    };
    let outcome = build(recipe, store, &options, &mut |e: BuildEvent| log.push(e));
    outcome.unwrap_or_else(|e| panic!("{e}: {:?}\n{log:?}", std::error::Error::source(&e)))
}

#[test]
fn files_only_same_digest_everywhere_and_cached() {
    let tmp = tempfile::tempdir().unwrap();
    let recipe = tmp.path().join("demo.yaml");
    std::fs::write(&recipe, FILES).unwrap();
    std::fs::write(tmp.path().join("b"), "b").unwrap();
    let stores = ["one", "two"].map(|s| ImageStore::open(&tmp.path().join(s)).unwrap());
    let first = run(&recipe, &stores[0], false);
    assert!(matches!(first, BuildOutcome::Built(_)));
    let digest = first.summary().digest.clone();
    assert_eq!(run(&recipe, &stores[1], false).summary().digest, digest);
    assert!(matches!(
        run(&recipe, &stores[0], false),
        BuildOutcome::UpToDate(_)
    ));
    let again = run(&recipe, &stores[0], true);
    assert!(matches!(again, BuildOutcome::Built(_)) && again.summary().digest == digest);
    assert_eq!(stores[0].list().unwrap().len(), 1);
    // Damaged documents are no image of this recipe.
    std::fs::write(stores[0].dir().join("blobs/sha256").join(digest.hex()), "{}").unwrap();
    let repaired = run(&recipe, &stores[0], false);
    assert!(matches!(repaired, BuildOutcome::Built(_)) && repaired.summary().digest == digest);

    let image = stores[0].resolve("demo:1").unwrap();
    assert_eq!(
        (image.config.user.as_str(), image.config.working_dir.as_str()),
        ("5:6", "/srv")
    );
    std::fs::write(tmp.path().join("b"), "changed").unwrap();
    assert_ne!(run(&recipe, &stores[0], false).summary().digest, digest);
    // What was built can be imported elsewhere: it is a plain OCI layout.
    let third = ImageStore::open(&tmp.path().join("three")).unwrap();
    assert_eq!(
        third.import_layout(stores[1].dir(), None).unwrap()[0].digest,
        digest
    );
    if root_or_skip("unpacking what was built") {
        let unpacked = third.unpack(&third.resolve("demo:1").unwrap()).unwrap();
        assert_eq!(
            std::fs::read_to_string(unpacked.lowerdirs[0].join("etc/demo/a")).unwrap(),
            "a"
        );
    }
}

#[test]
fn debian_twice_gives_the_same_digest() {
    let test = "debian_twice_gives_the_same_digest";
    if !root_or_skip(test) {
        return;
    }
    if std::process::Command::new("mmdebstrap")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: {test} needs mmdebstrap (apt-get install mmdebstrap)");
        assert!(
            !std::env::var("REQUIRE")
                .unwrap_or_default()
                .split(',')
                .any(|r| r == "images")
        );
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let recipe = tmp.path().join("base.yaml");
    let text = FILES
        .replace("spec:\n", "spec:\n  debian: {suite: bookworm, packages: [hostname]}\n  trim: [/usr/share/doc, /usr/share/locale]\n")
        .replace("/etc/demo/a", "/bin/demo");
    std::fs::write(&recipe, text).unwrap();
    std::fs::write(tmp.path().join("b"), "b").unwrap();
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let first = run(&recipe, &store, false).summary().clone();
    let second = run(&recipe, &store, true).summary().clone();
    assert_eq!(first.digest, second.digest);
    let unpacked = store.unpack(&store.resolve("demo:1").unwrap()).unwrap();
    // /bin is a link in Debian: the file went where it leads, and the link is still there.
    assert!(
        unpacked.lowerdirs[0].join("usr/bin/demo").is_file() && !unpacked.lowerdirs[0].join("bin").exists()
    );
    assert!(
        unpacked.lowerdirs[1].join("bin").is_symlink()
            && unpacked.lowerdirs[1].join("usr/bin/hostname").exists()
    );
    assert!(!unpacked.lowerdirs[1].join("usr/share/doc").exists());
    assert_eq!(
        std::fs::read(unpacked.lowerdirs[1].join("etc/resolv.conf")).unwrap(),
        b""
    );
}

#[test]
fn a_failing_build_says_why_and_leaves_nothing() {
    if !root_or_skip("a_failing_build_says_why_and_leaves_nothing") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let recipe = tmp.path().join("r.yaml");
    std::fs::write(&recipe, FILES.replace("/srv/b, source", "/etc/demo, source")).unwrap();
    std::fs::write(tmp.path().join("b"), "b").unwrap();
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let e = build(&recipe, &store, &BuildOptions::default(), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("/etc/demo") && e.contains("choose another path"),
        "{e}"
    );
    assert!(store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}
