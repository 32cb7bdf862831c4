//! The committed object must be what the sources give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .collect();
    files.sort();
    files
}

/// In the order of `prog/build.sh`.
fn sources() -> Vec<PathBuf> {
    let (prog, common) = (root().join("prog"), root().join("common"));
    let mut files: Vec<_> = ["Cargo.toml", "Cargo.lock", "build.sh"]
        .map(|f| prog.join(f))
        .into();
    files.extend(rust_files(&prog.join("src")));
    files.push(common.join("Cargo.toml"));
    files.extend(rust_files(&common.join("src")));
    files
}

#[test]
fn object_is_of_these_sources() {
    let name = |path: &Path| match path.strip_prefix(root().join("prog")) {
        Ok(inside) => inside.display().to_string(),
        Err(_) => format!("../{}", path.strip_prefix(root()).unwrap().display()),
    };
    let line = |path: &PathBuf| {
        let digest = hex::encode(Sha256::digest(std::fs::read(path).unwrap()));
        format!("{digest}  {}\n", name(path))
    };
    let now: String = sources().iter().map(line).collect();
    let recorded = std::fs::read_to_string(root().join("object/SOURCES.sha256")).unwrap();
    let of_sources = |line: &&str| !line.ends_with("  gantry.bpf.o\n");
    let recorded: String = recorded.split_inclusive('\n').filter(of_sources).collect();
    assert_eq!(
        recorded, now,
        "the kernel sources changed: run ebpf/prog/build.sh and commit ebpf/object"
    );
}

/// The sections that the kernel executes. Debug information holds a hash of where the sources lie.
fn code(object: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let number = |at: usize, bytes: usize| {
        object[at..at + bytes]
            .iter()
            .rev()
            .fold(0usize, |n, b| n << 8 | usize::from(*b))
    };
    // ELF64, little endian: e_shoff, e_shnum, e_shstrndx.
    let (table, count, names) = (number(40, 8), number(60, 2), number(62, 2));
    let section = |index: usize| {
        let at = table + index * 64;
        (number(at, 4), number(at + 24, 8), number(at + 32, 8))
    };
    let (_, strings, _) = section(names);
    let mut found = BTreeMap::new();
    for (name, offset, size) in (0..count).map(section) {
        let text: Vec<u8> = object[strings + name..]
            .iter()
            .take_while(|b| **b != 0)
            .copied()
            .collect();
        let text = String::from_utf8(text).unwrap();
        if ["classifier", ".text", "maps"].contains(&text.as_str()) {
            found.insert(text, object[offset..offset + size].to_vec());
        }
    }
    assert_eq!(found.len(), 3);
    found
}

#[test]
fn rebuilding_gives_the_same_code() {
    if Command::new("bpf-linker").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no bpf-linker; cargo install bpf-linker --version 0.10.4 --locked");
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|r| r == "bpf-build"),
            "REQUIRE=bpf-build, but no bpf-linker"
        );
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut build = Command::new(root().join("prog/build.sh"));
    build.env("OUT", out.path()).env("CARGO_TARGET_DIR", target);
    // Set by the cargo that runs this test; the script's cargo builds for another target.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        build.env_remove(variable);
    }
    let output = build.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rebuilt = std::fs::read(out.path().join("gantry.bpf.o")).unwrap();
    let committed = std::fs::read(root().join("object/gantry.bpf.o")).unwrap();
    assert!(
        code(&rebuilt) == code(&committed),
        "another object: run ebpf/prog/build.sh and commit ebpf/object"
    );
}
