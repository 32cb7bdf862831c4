//! Templates: what occurs in the languages of configurations stays, or is refused with its place; nothing vanishes unseen.

use std::collections::BTreeMap;

use gantry_catalog::{Catalog, NfPackageSpec, Removed, TemplateSyntax};
use serde_json::json;

fn package(syntax: &str) -> String {
    format!(
        "apiVersion: gantry.dev/v1
kind: NfPackage
metadata: {{name: proxy, version: 1.2.3}}
spec:
  family: ims
  role: P-CSCF
  plane: signalling
  {syntax}
  values: {{rate: 5, debug: false}}
  containers: [{{name: main, image: 'proxy:1', cpu: {{mode: shared, request: 200m}}, memory: 64Mi}}]
  needs: [{{function: as, role: SIP-AS, interface: sip}}]
  config: [{{template: proxy.cfg, path: /etc/proxy.cfg}}]
"
    )
}

fn load(syntax: &str, template: &str) -> Result<NfPackageSpec, String> {
    let descriptor = package(syntax);
    let files = [
        ("packages/proxy/package.yaml", descriptor.as_str()),
        ("packages/proxy/proxy.cfg", template),
    ];
    match Catalog::from_files(files, |job| job.run(|_| ())) {
        Ok(catalog) => Ok(catalog.package("proxy", None).unwrap().clone()),
        Err(errors) => Err(errors.iter().map(|e| format!("{e}\n")).collect()),
    }
}

fn rendered(syntax: &str, template: &str) -> (String, Vec<Removed>) {
    let package = load(syntax, template).unwrap_or_else(|e| panic!("{template}: {e}"));
    let mut done = package.examples("x", &BTreeMap::new())[0].run(|_| ()).unwrap();
    let traced = done.remove("proxy.cfg").unwrap();
    (traced.text, traced.removed)
}

/// kamailio's `{#comment`: six lines vanished once.
const MARKS: &str = "request_route {
    if ($rU == \"nobody\") {# answers nothing
        exit;
    }
    xlog(\"important line\\n\");
    #}
    t_relay();
}
";

#[test]
fn marks_of_other_languages_are_text() {
    let others = [
        MARKS,
        "{{1,2},{3,4}}\n{% 100\n{%- x\n",
        "a = {{}}\n#}\n%}\n}}\n",
        "<a b=\"<\"/>\n<!-- {{ x }} -->\n${{ github }}\n{{- .Values.x }}\n",
    ];
    for text in others {
        assert_eq!(rendered("", text), (text.to_owned(), Vec::new()));
    }
    let mixed = format!("{MARKS}rate=<%= values.rate %>\n");
    assert_eq!(rendered("", &mixed).0, format!("{MARKS}rate=5\n"));
}

#[test]
fn a_clash_is_refused_with_its_place() {
    for (syntax, template, expected) in [
        (
            "templateSyntax: jinja",
            MARKS,
            "packages/proxy/proxy.cfg:2:26: `{#` begins a comment",
        ),
        (
            "",
            "a\n  b {{ values.rate }}\n",
            "packages/proxy/proxy.cfg:2:5: this is a tag of jinja",
        ),
        (
            "",
            "{%- if values.rate %}\n",
            "packages/proxy/proxy.cfg:1:1: this is a tag of jinja",
        ),
        ("", "a <% comment\n", "packages/proxy/proxy.cfg:1:"),
        ("", "<%# comment %>\n", "packages/proxy/proxy.cfg:1:3: "),
        ("", "x\ny <%= values.typo %>\n", "packages/proxy/proxy.cfg:2:"),
        ("", "x\n<% if values.rate %>\n", "packages/proxy/proxy.cfg:"),
        (
            "templateSyntax: jinja",
            "{{1,2},{3,4}}\n",
            "packages/proxy/proxy.cfg:1:",
        ),
        ("templateSyntax: erb", "x\n", "packages/proxy/package.yaml:8:"),
    ] {
        let error = load(syntax, template).expect_err(template);
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn what_is_left_out_is_said() {
    let template = "always\n<% if values.debug %>\nonly to debug\n<% else %>\nelse\n<% endif %>\n\
                    <% for n in [1, 2] -%>\n  twice <%= n %>\n  plain\n<% endfor %>\n\
                    <% raw %>\n<% if %> as it is\n<% endraw %>\nlast <%= peers.as.vip %>:<%= self.name %>\n";
    let (text, removed) = rendered("", template);
    assert!(
        text.contains("plain\n")
            && text.contains("<% if %> as it is\n")
            && text.ends_with("last 192.0.2.2:x\n"),
        "{text}"
    );
    let gone = Removed {
        line: 3,
        text: "only to debug".to_owned(),
        conditional: true,
    };
    assert_eq!(removed, [gone]);
    let (text, removed) = rendered(
        "",
        "a <%- if values.debug -%> hidden <%- else -%> shown <%- endif -%> b\n",
    );
    assert_eq!(text, "a shown b\n".replace(' ', ""));
    let gone: Vec<(usize, &str)> = removed.iter().map(|r| (r.line, r.text.as_str())).collect();
    assert_eq!(gone, [(1, "hidden")]);
    let jinja = template.replace("<%=", "{{").replace("<%", "{%");
    let jinja = with_jinja_ends(&jinja);
    assert_eq!(rendered("templateSyntax: jinja", &jinja).1.len(), 1);
}

/// Ends of values and of statements differ in jinja.
fn with_jinja_ends(text: &str) -> String {
    let mut out = String::new();
    let mut value = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        value = match &rest[..rest.len().min(2)] {
            "{{" => true,
            "{%" => false,
            _ => value,
        };
        if rest.starts_with("%>") {
            out += if value { "}}" } else { "%}" };
            rest = &rest[2..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Objects of the API from before there was a choice keep their meaning, but no comments.
#[test]
fn objects_without_a_syntax_are_jinja() {
    let mut package = load("", "x\n").unwrap();
    assert_eq!(package.template_syntax, Some(TemplateSyntax::Angle));
    let mut object = serde_json::to_value(&package).unwrap();
    assert_eq!(object["templateSyntax"], json!("angle"));
    object.as_object_mut().unwrap().remove("templateSyntax");
    package = serde_json::from_value(object).unwrap();
    package
        .templates
        .insert("proxy.cfg".to_owned(), "rate={{ values.rate }}\n".to_owned());
    assert_eq!(package.problems(), []);
    package.templates.insert("proxy.cfg".to_owned(), MARKS.to_owned());
    let problems = package.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].path, "spec.templates.proxy.cfg");
    assert!(
        problems[0].message.starts_with("line 2, column 26: `{#`"),
        "{}",
        problems[0].message
    );
}

/// On a stack as small as a server's threads have: a parser that overflows it ends the whole process.
#[test]
fn what_would_take_the_parser_too_deep_is_refused_before() {
    /// As much as a package may have.
    const BYTES: usize = 1_000_000;
    let chains = [
        ("values.rate", "+1"),
        ("values.rate", "|string"),
        ("values.rate", "~1"),
        ("values.rate", ".a"),
        ("values.rate", "[0]"),
        ("values.rate", " if 1 else 1"),
        ("values.rate", " and 1"),
        ("", "not "),
        ("", "-"),
        ("", "("),
        ("", "["),
        ("", "{1:"),
    ];
    let tag = |(head, link): (&str, &str), times: usize| {
        let tail = if head.is_empty() { "1" } else { "" };
        format!("<%= {head}{}{tail} %>", link.repeat(times))
    };
    let elifs = |times| format!("<% if 0 %>{}<% endif %>", "<% elif 0 %>".repeat(times));
    let mut deep: Vec<String> = chains
        .iter()
        .map(|&chain| tag(chain, BYTES / chain.1.len()))
        .collect();
    deep.extend(chains.iter().map(|&chain| tag(chain, 1_000 / chain.1.len())));
    deep.extend([elifs(BYTES / 12), elifs(100)]);
    for (head, end) in [
        ("<% if 1 %>", "<% endif %>"),
        ("<% for a in [1] %>", "<% endfor %>"),
    ] {
        deep.push(head.repeat(BYTES / 30) + &end.repeat(BYTES / 30));
    }
    let run = move || {
        for template in deep {
            // Whatever comes of it, this thread lives on.
            let answer = load("", &template);
            if template.len() > 100_000 {
                let told = answer.expect_err(&template[..40]);
                assert!(
                    told.contains("proxy.cfg:1:") || told.contains("line 1"),
                    "{told:.300}"
                );
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread.spawn(run).unwrap().join().unwrap();
}
