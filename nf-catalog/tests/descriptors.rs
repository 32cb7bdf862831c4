//! Descriptors as people write them: good ones are read, broken ones are refused with file, line and column.

use gantry_catalog::{Catalog, Cpu, MilliCpu, NetworkFunctionSpec, parse_package};

const GOOD: &str = "\
apiVersion: gantry.dev/v1
kind: NfPackage
metadata: {name: proxy, version: 1.2.3}
spec:
  family: ims
  role: P-CSCF
  plane: signalling
  values: {rate: 5}
  containers:
    - name: main
      image: proxy:1
      cpu: {mode: shared, request: 200m}
      memory: 64Mi
      readinessProbe: {tcpSocket: {port: 9090}}
  interfaces:
    - {name: sip, protocol: SIP, transport: udp, port: 5060, service: true}
  config:
    - {template: proxy.cfg, path: /etc/proxy.cfg}
";

fn errors_of(text: &str) -> Vec<String> {
    let templates = [("proxy.cfg", "rate=<%= values.rate %>")];
    match parse_package("proxy.yaml", text, templates.into_iter()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_good_package_is_read() {
    let spec = parse_package(
        "proxy.yaml",
        GOOD,
        [("proxy.cfg", "x"), ("notes.txt", "y")].into_iter(),
    )
    .unwrap();
    assert_eq!((spec.package.as_str(), spec.version.as_str()), ("proxy", "1.2.3"));
    assert_eq!(
        spec.containers[0].cpu,
        Cpu::Shared {
            request: MilliCpu(200),
            limit: None
        }
    );
    assert_eq!(spec.templates.keys().collect::<Vec<_>>(), ["proxy.cfg"]);
    assert_eq!(spec.drain.flow_idle_seconds, 300);
}

#[test]
fn a_package_says_how_long_its_flows_may_be_silent() {
    let text = GOOD.replace("  config:", "  drain: {flowIdleSeconds: 30}\n  config:");
    let spec = parse_package("proxy.yaml", &text, [("proxy.cfg", "x")].into_iter()).unwrap();
    assert_eq!((spec.drain.flow_idle_seconds, spec.drain.quiet_seconds), (30, 5));
}

#[test]
fn a_package_that_is_older_than_a_field_is_read_and_stays_as_it_is() {
    let spec = parse_package("proxy.yaml", GOOD, [("proxy.cfg", "x")].into_iter()).unwrap();
    let value = serde_json::to_value(&spec).unwrap();
    assert_eq!(spec.program, "");
    assert_eq!(value.get("program"), None);
    assert_eq!(value["interfaces"][0].get("referencePoint"), None);
}

#[test]
fn broken_descriptors_name_file_line_and_column() {
    let broken = |from: &str, to: &str| {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "the test must break something");
        let errors = errors_of(&text);
        assert!(!errors.is_empty(), "{to} was accepted");
        errors.join("\n")
    };
    for (from, to, expected) in [
        (
            "memory: 64Mi",
            "memory: 1Ki",
            "proxy.yaml:13:15: spec.containers[0].memory",
        ),
        ("memory: 64Mi", "memory: 64Mo", "proxy.yaml:13:15: "),
        (
            "memory: 64Mi",
            "memory: 64Mi\n      security: {user: 4294967295}",
            "proxy.yaml:14:24: spec.containers[0].security.user: 4294967295 is too large: ids are 0 to 2147483647",
        ),
        (
            "memory: 64Mi",
            "memory: 64Mi\n      security: {group: 2147483648}",
            "spec.containers[0].security.group",
        ),
        ("version: 1.2.3", "version: 1.2", "proxy.yaml:3:"),
        ("name: proxy,", "name: Proxy,", "proxy.yaml:3:18: metadata.name"),
        (
            "name: proxy,",
            "name: proxy-with-a-name-that-is-much-too-long-for-pods,",
            "proxy.yaml:3:18: metadata.name: `proxy-with-a-name-that-is-much-too-long-for-pods` has 48 characters, at most 40",
        ),
        ("role: P-CSCF", "rolle: P-CSCF", "proxy.yaml:6:3: "),
        ("/etc/proxy.cfg", "/etc/../proxy.cfg", "spec.config[0].path"),
        (
            "/etc/proxy.cfg",
            "\"/etc/a proxy.cfg\"",
            "spec.config[0].path: `/etc/a proxy.cfg` has others than",
        ),
        (
            "/etc/proxy.cfg}",
            "/etc/a/b}\n    - {template: proxy.cfg, path: /etc/a-b}",
            "spec.config[1].path: `/etc/a/b` and `/etc/a-b` are one key of a ConfigMap",
        ),
        (
            "memory: 64Mi",
            "memory: 64Mi\n      scratch: [/etc]",
            "spec.containers[0].scratch[0]: `/etc` hides `/etc/proxy.cfg`",
        ),
        (
            "  config:",
            "  volumes: [{name: data, path: /etc/proxy.cfg, size: 16Mi}]\n  upgrade: {strategy: replace}\n  config:",
            "spec.volumes[0].path: `/etc/proxy.cfg` hides `/etc/proxy.cfg`",
        ),
        (
            "template: proxy.cfg",
            "template: other.cfg",
            "proxy.yaml:18:18: spec.config[0].template",
        ),
        ("kind: NfPackage", "kind: Package", "proxy.yaml:2:7: kind"),
        (
            "  config:",
            "  drain: {flowIdleSeconds: 0}\n  config:",
            "proxy.yaml:17:28: spec.drain.flowIdleSeconds",
        ),
        (
            "  config:",
            "  drain: {flowIdleSeconds: 86401}\n  config:",
            "spec.drain.flowIdleSeconds",
        ),
        (
            "  config:",
            "  secrets: [{secret: keys, key: k, path: /etc/proxy.cfg}]\n  config:",
            "spec.secrets[0].path: `/etc/proxy.cfg` is a file of spec.config, too",
        ),
        (
            "  config:",
            "  secrets: [{secret: keys, key: a/b, path: /k}]\n  config:",
            "spec.secrets[0].key",
        ),
        (
            "  config:",
            "  secrets: [{secret: Keys, key: k, path: /k}]\n  config:",
            "spec.secrets[0].secret",
        ),
        (
            "  config:",
            "  secrets: [{secret: keys, key: k, path: /k, peer: nobody}]\n  config:",
            "spec.secrets[0].peer: there is no need `nobody`",
        ),
        (
            "{tcpSocket: {port: 9090}}",
            "{periodSeconds: 1}",
            "proxy.yaml:14:23: spec.containers[0].readinessProbe",
        ),
        ("port: 5060", "port: 99999", "proxy.yaml:16:"),
        (
            "  config:",
            "    - {name: sip2, protocol: SIP, transport: udp, port: 5060, service: true}\n  config:",
            "spec.interfaces[1].port",
        ),
    ] {
        let errors = broken(from, to);
        assert!(
            errors.contains(expected),
            "{to}: expected {expected} in\n{errors}"
        );
    }
}

#[test]
fn every_broken_rule_is_named_at_once() {
    let text = GOOD
        .replace("memory: 64Mi", "memory: 1Ki")
        .replace("version: 1.2.3", "version: x");
    assert_eq!(errors_of(&text).len(), 2);
}

#[test]
fn a_service_is_checked_against_its_packages() {
    let service = "\
apiVersion: gantry.dev/v1
kind: NetworkService
metadata: {name: core}
spec:
  functions:
    - {name: a, package: proxy, version: 1.2.3, values: {speed: 1}}
    - {name: b, package: absent, version: 1.0.0}
";
    let files = [
        ("packages/proxy/package.yaml", GOOD),
        ("packages/proxy/proxy.cfg", "x"),
        ("services/core.yaml", service),
    ];
    let errors = Catalog::from_files(files, |job| job.run(|_| ())).unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        text[0].starts_with("services/core.yaml:6:65: spec.functions[0].values.speed: proxy has no value"),
        "{text:?}"
    );
    assert!(
        text[1].starts_with("services/core.yaml:7:26: spec.functions[1].package: there is no package absent"),
        "{text:?}"
    );
}

#[test]
fn a_service_has_bounds() {
    let errors = |functions: &str| {
        let service = format!(
            "apiVersion: gantry.dev/v1\nkind: NetworkService\nmetadata: {{name: core}}\nspec:\n  functions:\n{functions}"
        );
        let files = [
            ("packages/proxy/package.yaml", GOOD),
            ("packages/proxy/proxy.cfg", "x"),
            ("services/core.yaml", &service),
        ];
        let errors = Catalog::from_files(files, |job| job.run(|_| ())).unwrap_err();
        errors.iter().map(|e| format!("{e}\n")).collect::<String>()
    };
    let function = |name: &str| format!("    - {{name: {name}, package: proxy, version: 1.2.3}}\n");
    let long = errors(&function(&"a".repeat(59)));
    assert!(
        long.contains("has 59 characters, a function's name at most 58"),
        "{long}"
    );
    let many: String = (0..257).map(|n| function(&format!("f{n}"))).collect();
    let many = errors(&many);
    assert_eq!(many.lines().count(), 1, "{many}");
    assert!(
        many.contains("257 functions, a service has at most 256"),
        "{many}"
    );
}

#[test]
fn templates_are_tried_in_the_extreme() {
    let instance = GOOD
        .replace("path: /etc/proxy.cfg", "path: /etc/proxy.cfg, instance: true")
        .replace(
            "  config:",
            "  needs: [{function: as, role: SIP-AS, interface: sip}]\n  config:",
        );
    let errors = |template: &str| {
        let files = [
            ("packages/proxy/package.yaml", &*instance),
            ("packages/proxy/proxy.cfg", template),
        ];
        let read = Catalog::from_files(files, |job| job.run(|_| ()));
        read.err().map_or(0, |errors| errors.len())
    };
    assert_eq!(
        errors("<% for peer in peers.as.instances %><%= peer.host %>\n<% endfor %>"),
        0
    );
    assert_eq!(
        errors("<%= peers.as.instances[0].host %>"),
        1,
        "there may be none"
    );
    assert_eq!(errors("<%= nobody %>"), 1, "told once");
}

#[test]
fn what_nobody_would_read_is_an_error() {
    let files = [
        ("packages/proxy/package.yml", GOOD),
        ("packages/proxy/proxy.cfg", "x"),
        ("services/core.yml", "x"),
    ];
    let errors = Catalog::from_files(files, |job| job.run(|_| ())).unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        text[0].starts_with("packages/proxy/package.yaml:1:1: is missing"),
        "{text:?}"
    );
    assert!(
        text[1].starts_with("services/core.yml:1:1: is no service"),
        "{text:?}"
    );
}

#[test]
fn what_a_function_changes_has_the_shape_that_its_package_gives() {
    let files = [
        ("packages/proxy/package.yaml", GOOD),
        ("packages/proxy/proxy.cfg", "x"),
    ];
    let catalog = Catalog::from_files(files, |job| job.run(|_| ())).unwrap();
    let package = catalog.package("proxy", None).unwrap();
    let problems = |spec: &str| {
        let spec = format!("{{package: proxy, version: 1.2.3, {spec}}}");
        let function: NetworkFunctionSpec = serde_saphyr::from_str(&spec).unwrap();
        let problems = function.problems(package);
        let told = problems.iter().map(|p| format!("{}: {}", p.path, p.message));
        told.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(problems("values: {rate: 7}"), "");
    assert_eq!(problems("values: {rate: \"7\"}"), "");
    for (change, told) in [
        (
            "values: {rate: null}",
            "spec.values.rate: proxy takes one value for `rate`",
        ),
        ("values: {rate: [1]}", "and this is a list"),
        (
            "resources: {main: {memory: \"0\"}}",
            "spec.resources.main.memory: 0 bytes are too few",
        ),
    ] {
        let found = problems(change);
        assert!(found.contains(told), "{change}: {found}");
    }
}

#[test]
fn a_package_sets_kernel_parameters_of_its_pods_alone() {
    for (name, is_own) in [
        ("net.ipv4.ip_forward", true),
        ("kernel.shm_rmid_forced", true),
        ("kernel.panic", false),
        ("net/../kernel/panic", false),
        ("net.", false),
    ] {
        let text = GOOD.replace("spec:\n", &format!("spec:\n  sysctls: {{{name}: \"1\"}}\n"));
        let refused = errors_of(&text)
            .iter()
            .any(|e| e.contains("is not of a pod's own"));
        assert_eq!(refused, !is_own, "{name}");
    }
}
