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
        .replace("spec:\n", "spec:\n  debian: {suite: bookworm, packages: [netbase]}\n  trim: [/usr/bin/chsh]\n  keep: [/usr/share/doc/netbase]\n")
        .replace("/etc/demo/a", "/bin/demo");
    std::fs::write(&recipe, text).unwrap();
    std::fs::write(tmp.path().join("b"), "b").unwrap();
    let store = ImageStore::open(&tmp.path().join("store")).unwrap();
    let first = run(&recipe, &store, false).summary().clone();
    // Installed once more on the same base, which is new enough; then on another, since somebody changed the first.
    let again = BuildOptions {
        no_cache: true,
        since: Some(std::time::UNIX_EPOCH),
        ..BuildOptions::default()
    };
    let steps = steps_of(&recipe, &store, &again);
    assert!(
        !steps.contains("bootstrapping") && steps.contains("installing"),
        "{steps}"
    );
    assert_eq!(store.resolve("demo:1").unwrap().digest, first.digest);
    let changed = store.dir().join("cache/base-bookworm-minbase/root/usr/bin/true");
    std::fs::write(changed, "changed").unwrap();
    assert!(steps_of(&recipe, &store, &again).contains("bootstrapping"));
    assert_eq!(store.resolve("demo:1").unwrap().digest, first.digest);
    let unpacked = store.unpack(&store.resolve("demo:1").unwrap()).unwrap();
    let [files, role, base] = &unpacked.lowerdirs[..] else {
        panic!("{:?}", unpacked.lowerdirs);
    };
    // /bin is a link in Debian: the file went where it leads, and the link is still there.
    assert!(files.join("usr/bin/demo").is_file() && !files.join("bin").exists());
    assert!(base.join("bin").is_symlink() && base.join("usr/bin/bash").exists());
    assert!(!base.join("usr/bin/perl").exists() && !base.join("usr/share/doc").exists());
    assert_eq!(std::fs::read(base.join("etc/resolv.conf")).unwrap(), b"");
    assert!(role.join("etc/protocols").is_file() && role.join("var/lib/dpkg/status").is_file());
    assert!(!role.join("usr/bin/bash").exists() && !role.join("usr/sbin/policy-rc.d").exists());
    // Left out of the base, kept by the recipe; and the other way round.
    assert!(role.join("usr/share/doc/netbase/copyright").is_file());
    let hidden = rustix::fs::lstat(role.join("usr/bin/chsh")).unwrap();
    assert_eq!((hidden.st_mode & 0o170_000, hidden.st_rdev), (0o020_000, 0));

    one_base_is_shared_and_what_did_not_change_is_not_made_again(&tmp, &store, &recipe);
}

/// Goes on with the store of the test before: a base takes half a minute.
fn one_base_is_shared_and_what_did_not_change_is_not_made_again(
    tmp: &tempfile::TempDir,
    store: &ImageStore,
    recipe: &Path,
) {
    let layers = |image: &str| store.resolve(image).unwrap().diff_ids;
    let before = layers("demo:1");
    let text = std::fs::read_to_string(recipe).unwrap();
    let other = tmp.path().join("other.yaml");
    std::fs::write(
        &other,
        text.replace("name: demo", "name: other")
            .replace("[netbase]", "[hello]"),
    )
    .unwrap();
    let steps = steps_of(&other, store, &BuildOptions::default());
    assert!(
        !steps.contains("bootstrapping") && steps.contains("installing"),
        "{steps}"
    );
    assert_eq!(layers("other:1")[0], before[0]);
    assert_ne!(layers("other:1")[1], before[1]);

    // Another file: neither the base nor the packages are touched.
    std::fs::write(tmp.path().join("b"), "changed").unwrap();
    let steps = steps_of(recipe, store, &BuildOptions::default());
    assert!(
        !steps.contains("bootstrapping") && !steps.contains("installing"),
        "{steps}"
    );
    assert_eq!(layers("demo:1")[..2], before[..2]);
    assert_ne!(layers("demo:1")[2], before[2]);
}

/// Builds; what was done.
fn steps_of(recipe: &Path, store: &ImageStore, options: &BuildOptions) -> String {
    let mut steps = Vec::new();
    let built = build(recipe, store, options, &mut |event| {
        if let BuildEvent::Step(step) = event {
            steps.push(step);
        }
    });
    let built = built.unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
    assert!(matches!(built, BuildOutcome::Built(_)));
    steps.join("\n")
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
