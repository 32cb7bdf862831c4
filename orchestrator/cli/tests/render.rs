//! Templates that take all they can get, in the process that renders: each is refused by name, and within its bounds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use gantry_catalog::{Answer, Bounds, Job, NfPackageSpec, TemplateReason};
use gantry_orchestrator::renderer::Renderer;
use serde_json::json;

const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

fn job(template: &str) -> Job {
    let package: NfPackageSpec = serde_json::from_value(json!({
        "package": "p", "version": "1.0.0", "family": "ims", "role": "R", "plane": "signalling",
        "containers": [{"name": "main", "image": "p:1", "cpu": {"mode": "shared", "request": "200m"}, "memory": "64Mi"}],
        "config": [{"template": "good.cfg", "path": "/etc/good.cfg"}, {"template": "main.cfg", "path": "/etc/main.cfg"}],
        "templates": {"good.cfg": "name={{ self.name }}\n", "main.cfg": template},
    }))
    .unwrap();
    Job {
        context: package.example_contexts("x", &BTreeMap::new()).remove(0),
        package,
        traced: false,
        bounds: Bounds::default(),
    }
}

fn render(job: &Job) -> Answer {
    let renderer = Renderer::Process(PathBuf::from(GANTRY));
    renderer.render(job).unwrap()
}

/// Most memory that any process which this one waited for has had, in bytes.
fn peak_of_children() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills in a structure of its own kind, and zeroes are one.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    u64::try_from(usage.ru_maxrss).unwrap() * 1024
}

fn bombs() -> Vec<(&'static str, String)> {
    let loops = "{% for i in range(60) %}";
    let of = |setup: &str, step: &str, end: &str| {
        format!("{{% set ns = namespace({setup}) %}}{loops}{{% set ns.s = {step} %}}{{% endfor %}}{end}")
    };
    vec![
        ("a text doubled", of("s='x'", "ns.s ~ ns.s", "{{ ns.s|length }}")),
        ("a list doubled", of("s=[1]", "(ns.s + ns.s)|list", "{{ ns.s|length }}")),
        ("a tree as text", of("s=[1]", "[ns.s, ns.s]", "{{ ns.s|string|length }}")),
        ("a block doubled", "{% set s = 'x' %}".to_owned() + &"{% set s %}{{ s }}{{ s }}{% endset %}".repeat(60)),
        ("multiplied texts", "{{ ('x' * 100000000 ~ 'x' * 100000000)|length }}".to_owned()),
        ("a multiplied list", "{{ (range(100000)|list * 900)|list|length }}".to_owned()),
        ("replace", "{{ ('x' * 50000000)|replace('x', 'y' * 100)|length }}".to_owned()),
        ("join", "{{ range(100000)|join('x' * 1000000)|length }}".to_owned()),
        ("format", "{{ '%0999999999d'|format(1)|length }}".to_owned()),
        ("indent", "{{ ('x\n' * 1000000)|indent(1000000)|length }}".to_owned()),
        ("a macro doubled", "{% macro m(s) %}{{ m(s ~ s) }}{% endmacro %}{{ m('x' * 1000000) }}".to_owned()),
        ("a macro in itself", "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}".to_owned()),
        ("loops", "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}".to_owned()),
        ("time", "{% for i in range(10000) %}{% if ('x' * 50000000)|length %}{% endif %}{% endfor %}".to_owned()),
        ("a long output", "{{ 'x' * 2000000 }}".to_owned()),
        ("nested parentheses", format!("{{{{ {}1 }}}}", "(".repeat(400_000))),
        ("nested lists", format!("{{{{ {}1 }}}}", "[".repeat(400_000))),
        ("nested statements", "{% if 1 %}".repeat(80_000)),
        ("a chain of operators", format!("{{{{ 1{} }}}}", "+1".repeat(400_000))),
        ("a chain of filters", format!("{{{{ 'x'{} }}}}", "|upper".repeat(150_000))),
        ("a deep value", "{% set ns = namespace(s=[1]) %}{% for i in range(60000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s|string|length }}".to_owned()),
        ("fill of batches", "{{ [1]|batch(1000000000, 'x')|list|length }}".to_owned()),
        ("slices", "{{ [1]|slice(1000000000)|list|length }}".to_owned()),
    ]
}

/// Without the bound of memory and time most of these take gigabytes, or minutes.
#[test]
fn whatever_takes_too_much_is_refused_by_name_and_within_its_bounds() {
    let bounds = Bounds::default();
    let mut fine = Vec::new();
    for (name, template) in bombs() {
        let before = std::time::Instant::now();
        let answer = render(&job(&template));
        let peak = peak_of_children() >> 20;
        match answer {
            Ok(_) => fine.push(name),
            Err(problems) => {
                let problem = &problems[0];
                println!(
                    "{name}: {:?}, {} ms, most so far {peak} MiB: {}",
                    problem.reason,
                    before.elapsed().as_millis(),
                    problem.message.chars().take(120).collect::<String>()
                );
                assert_eq!(problem.template, "main.cfg", "{name}: {problem}");
                assert!(!problem.message.is_empty());
            }
        }
    }
    println!("not refused: {fine:?}");
    // The program itself is not of the kind that is bounded: its pages are of its file.
    let most = bounds.memory_bytes.unwrap() + (96 << 20);
    assert!(peak_of_children() < most, "{} bytes", peak_of_children());
    let good = render(&job("vip={{ self.vip }}\n")).unwrap();
    assert_eq!(good["main.cfg"].text, "vip=192.0.2.1\n");
}

#[test]
fn memory_and_time_are_named_as_what_was_missing() {
    let doubled = &bombs()[0].1;
    let problem = &render(&job(doubled)).unwrap_err()[0];
    assert_eq!(problem.reason, TemplateReason::TooExpensive);
    assert!(
        problem.message.contains("more than 128 MiB of memory"),
        "{problem}"
    );
    let mut job = job("{% for i in range(60000) %}{% if ('x' * 30000000)|length %}{% endif %}{% endfor %}");
    job.bounds.cpu_seconds = Some(1);
    let problem = &render(&job).unwrap_err()[0];
    assert_eq!(problem.reason, TemplateReason::TooExpensive);
    assert!(problem.message.contains("more than 1 s of CPU time"), "{problem}");
}

/// `gantry catalog` renders what somebody has downloaded.
#[test]
fn the_command_has_the_same_bounds_and_says_the_same() {
    let root = tempfile::tempdir().unwrap();
    let package = root.path().join("packages/p");
    std::fs::create_dir_all(&package).unwrap();
    let descriptor = "apiVersion: gantry.dev/v1
kind: NfPackage
metadata: {name: p, version: 1.0.0}
spec:
  family: ims
  role: R
  plane: signalling
  templateSyntax: jinja
  containers: [{name: main, image: 'p:1', cpu: {mode: shared, request: 200m}, memory: 64Mi}]
  config: [{template: main.cfg, path: /etc/main.cfg}]
";
    std::fs::write(package.join("package.yaml"), descriptor).unwrap();
    std::fs::write(package.join("main.cfg"), &bombs()[0].1).unwrap();
    let verify = Command::new(GANTRY)
        .args(["catalog", "verify"])
        .arg(root.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(!verify.status.success());
    assert!(
        said.contains("main.cfg") && said.contains("more than 128 MiB of memory"),
        "{said}"
    );
    // Anchors that stand for anchors: nine million items from a few lines.
    let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..9 {
        let last = format!("*a{}", n - 1);
        yaml += &format!("a{n}: &a{n} [{}]\n", vec![last; 10].join(", "));
    }
    std::fs::write(package.join("package.yaml"), yaml).unwrap();
    let verify = Command::new(GANTRY)
        .args(["catalog", "verify"])
        .arg(root.path())
        .output()
        .unwrap();
    assert!(!verify.status.success());
    println!("{}", String::from_utf8_lossy(&verify.stderr));
    assert!(peak_of_children() < 300 << 20, "{} bytes", peak_of_children());
}
