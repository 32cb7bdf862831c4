//! What is wrong with a request: patches, bodies, selectors; and many of them.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Case, Harm, Process, Tenant};

/// Of a selector, fewer than are refused.
const TERMS: usize = 250;
/// Requests at once on one connection: no more wait for their turn.
const AT_ONCE: usize = 60;
/// Of an object whose watches are not read: over the seconds in which those begin.
const CHANGES: usize = 40;
/// Clients that read little.
const READERS: usize = 10;
/// What curl ends with when its time is over.
const OUT_OF_TIME: &str = "28";
/// What a tenant is told whose answers nobody reads.
const MANY_ENDED: &str = "many are refused or cut off";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "copies that double",
        kind: "json patch",
        protection: "json-patch",
        attack: copies,
        told: "RequestEntityTooLarge",
        harm: Harm::Memory(Process::Orchestrator, 150),
    },
    Case {
        name: "ten thousand and one operations",
        kind: "json patch",
        protection: "json-patch",
        attack: operations,
        told: "maximum operations",
        harm: Harm::Told("\"resourceVersion\""),
    },
    Case {
        name: "an object copied into itself",
        kind: "json patch",
        protection: "json-patch",
        attack: into_itself,
        told: "nested deeper",
        harm: Harm::Neighbours,
    },
    Case {
        name: "lists of thirty thousand, merged by key",
        kind: "strategic merge",
        protection: "merge-patch",
        attack: long_lists,
        told: "too long to be merged",
        harm: Harm::Neighbours,
    },
    Case {
        name: "a body of 64 MiB",
        kind: "body",
        protection: "body",
        attack: |tenant| map(tenant, &json!({"a": "x".repeat(64 << 20)}).to_string()),
        told: "limit is 3145728",
        harm: Harm::Memory(Process::Orchestrator, 100),
    },
    Case {
        name: "a ConfigMap of 2 MiB",
        kind: "object size",
        protection: "object-size",
        attack: |tenant| map(tenant, &json!({"a": "x".repeat(2 << 20)}).to_string()),
        told: "larger than",
        harm: Harm::Told("\"resourceVersion\""),
    },
    Case {
        name: "lists within lists, too deep for clients",
        kind: "nesting",
        protection: "nesting",
        attack: nested,
        told: "nested deeper",
        harm: Harm::Told("nobody can read the list"),
    },
    Case {
        name: "half a million small objects",
        kind: "values",
        protection: "values",
        attack: |tenant| map(tenant, &format!("[{}0]", "{\"\":0},".repeat(400_000))),
        told: "values",
        harm: Harm::Memory(Process::Orchestrator, 150),
    },
    Case {
        name: "a label selector of 300 terms",
        kind: "selector",
        protection: "selector",
        attack: |tenant| select(tenant, &format!("labelSelector={}a", "a,".repeat(300))),
        told: "longer than",
        harm: Harm::Told("\"items\""),
    },
    Case {
        name: "a field selector of 300 terms",
        kind: "selector",
        protection: "selector",
        attack: |tenant| {
            let terms = "metadata.name!=a,".repeat(300);
            select(tenant, &format!("fieldSelector={}metadata.name!=b", terms))
        },
        told: "longer than",
        harm: Harm::Told("\"items\""),
    },
    Case {
        name: "hundreds of lists at once",
        kind: "share of requests",
        protection: "share",
        attack: list_loops,
        told: "200",
        harm: Harm::Neighbours,
    },
    Case {
        name: "hundreds of answers that are not read",
        kind: "unread answers",
        protection: "unread",
        attack: unread_objects,
        told: MANY_ENDED,
        harm: Harm::Memory(Process::Orchestrator, 300),
    },
    Case {
        name: "hundreds of watches that are not read",
        kind: "unread answers",
        protection: "unread",
        attack: unread_watches,
        told: MANY_ENDED,
        harm: Harm::Memory(Process::Orchestrator, 300),
    },
];

/// Makes a ConfigMap whose data is this text.
pub(super) fn map(tenant: &Tenant<'_>, data: &str) -> Result<String> {
    let body = format!("{{\"metadata\":{{\"name\":\"big\"}},\"data\":{data}}}");
    let path = tenant.path("configmaps");
    Ok(tenant.api.ask("POST", &path, "application/json", &body)?.body)
}

/// A function's values may be anything. Where the API takes it, whoever lists it is told whether others can still read the list.
fn nested(tenant: &Tenant<'_>) -> Result<String> {
    let deep = "[".repeat(124) + &"]".repeat(124);
    let spec = format!("{{\"package\":\"p\",\"version\":\"1.0.0\",\"values\":{{\"a\":{deep}}}}}");
    let body = format!("{{\"metadata\":{{\"name\":\"deep\"}},\"spec\":{spec}}}");
    let path = tenant.path("gantry.dev/v1/networkfunctions");
    let answer = tenant.api.ask("POST", &path, "application/json", &body)?;
    let list = tenant.api.get(&path)?;
    if list.code == 200 && list.json().is_null() {
        return Ok("nobody can read the list".to_owned());
    }
    Ok(answer.body)
}

fn select(tenant: &Tenant<'_>, selector: &str) -> Result<String> {
    Ok(tenant
        .api
        .get(&format!("{}?{selector}", tenant.path("configmaps")))?
        .body)
}

fn patch(tenant: &Tenant<'_>, text: &str, operations: Vec<Value>) -> Result<String> {
    let object = json!({"metadata": {"name": "patched"}, "data": {"a": text}});
    tenant.make("configmaps", &object)?;
    let (path, body) = (tenant.path("configmaps/patched"), json!(operations).to_string());
    let media = "application/json-patch+json";
    Ok(tenant.api.ask("PATCH", &path, media, &body)?.body)
}

fn copies(tenant: &Tenant<'_>) -> Result<String> {
    let copy = |i| json!({"op": "copy", "from": "/data", "path": format!("/data/b{i}")});
    patch(tenant, &"x".repeat(1000), (0..18).map(copy).collect())
}

fn operations(tenant: &Tenant<'_>) -> Result<String> {
    let add = json!({"op": "add", "path": "/data/b", "value": "c"});
    patch(tenant, "x", vec![add; 10_001])
}

fn into_itself(tenant: &Tenant<'_>) -> Result<String> {
    let copy = json!({"op": "copy", "from": "/data", "path": "/data/b"});
    patch(tenant, "x", vec![copy; 9_000])
}

/// Four at a time, since a server has so many hands.
fn long_lists(tenant: &Tenant<'_>) -> Result<String> {
    tenant.make("configmaps", &json!({"metadata": {"name": "merged"}}))?;
    let owner = |i: u32| json!({"uid": i.to_string()});
    let owners: Vec<Value> = (0..30_000).map(owner).collect();
    let body = json!({"metadata": {"ownerReferences": owners}}).to_string();
    let (path, media) = (
        tenant.path("configmaps/merged"),
        "application/strategic-merge-patch+json",
    );
    let ask = || tenant.api.ask("PATCH", &path, media, &body);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        let answers = asked
            .into_iter()
            .map(|a| a.join().unwrap_or_else(|_| anyhow::bail!("it panicked")));
        Ok(answers.collect::<Result<Vec<_>>>()?.remove(0).body)
    })
}

/// Many at a time, each a long search that finds nothing; then what the tenant itself is told.
fn list_loops(tenant: &Tenant<'_>) -> Result<String> {
    let maps = tenant.path("configmaps");
    let object = |i| json!({"metadata": {"name": format!("many{i}")}, "data": {"a": "x".repeat(1000)}});
    let objects: Vec<Value> = (0..tenant.size(1000, 5000)).map(object).collect();
    tenant.api.post_many(&maps, &objects)?;
    let terms: Vec<String> = (0..TERMS).map(|i| format!("!a{i}")).collect();
    let path = format!("{maps}?labelSelector={},b#[1-{AT_ONCE}]", terms.join(","));
    let clients: Vec<Child> = (0..tenant.size(1, 10))
        .map(|_| many(tenant, &path, &[], Stdio::null()))
        .collect::<Result<_, _>>()?;
    for mut client in clients {
        client.wait()?;
    }
    Ok(tenant.api.get(&format!("{maps}?limit=1"))?.code.to_string())
}

/// A large object many times over.
fn unread_objects(tenant: &Tenant<'_>) -> Result<String> {
    large(tenant, "big")?;
    let seen = unread(tenant, "configmaps/big", || Ok(()))?;
    cut_off(tenant, seen)
}

/// What the server's log says of clients that were cut off; `seen` if it says nothing. Clients that read little do not see it in time,
/// and where all come at once they are refused before any is cut off.
fn cut_off(tenant: &Tenant<'_>, seen: String) -> Result<String> {
    let log = fs::read_to_string(tenant.gantry.path().join("orchestrator.log"))?;
    let cut = |line: &&str| line.contains(&tenant.namespace) && line.contains("does not read its answers");
    Ok(match log.lines().find(cut) {
        Some(line) => format!("{MANY_ENDED}: {line}"),
        None => seen,
    })
}

/// Watches for which a large object comes and goes, so that each has copies of its own.
fn unread_watches(tenant: &Tenant<'_>) -> Result<String> {
    large(tenant, "big")?;
    let seen = unread(tenant, "configmaps?watch=true&labelSelector=chosen", || {
        (0..CHANGES).try_for_each(|number| {
            std::thread::sleep(Duration::from_millis(100));
            let chosen = (number % 2 == 0).then_some("yes");
            let labels = json!({"metadata": {"labels": {"chosen": chosen}}});
            let (path, media) = (tenant.path("configmaps/big"), "application/merge-patch+json");
            // Or it is refused, since too much is not read.
            tenant
                .api
                .ask("PATCH", &path, media, &labels.to_string())
                .map(drop)
        })
    })?;
    cut_off(tenant, seen)
}

fn large(tenant: &Tenant<'_>, name: &str) -> Result<()> {
    let data = json!({"a": "x".repeat(1400 << 10)});
    let map = json!({"metadata": {"name": name}, "data": data});
    tenant.post("configmaps", &map).map(drop)
}

/// Asks many times over, reads little of it for some seconds, and does something meanwhile; what became of those requests.
fn unread(tenant: &Tenant<'_>, question: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<String> {
    let path = format!("{}#[1-{AT_ONCE}]", tenant.path(question));
    let slowly = [
        "--limit-rate",
        "1k",
        "--max-time",
        "5",
        "--write-out",
        "%{exitcode}\n",
    ];
    let place = tempfile::tempdir()?;
    let mut clients = Vec::new();
    for number in 0..READERS {
        let codes = File::create(place.path().join(number.to_string()))?;
        clients.push(many(tenant, &path, &slowly, codes)?);
    }
    meanwhile()?;
    let mut ended = 0;
    for (number, mut client) in clients.into_iter().enumerate() {
        client.wait()?;
        let codes = fs::read_to_string(place.path().join(number.to_string()))?;
        ended += codes.lines().filter(|code| *code != OUT_OF_TIME).count();
    }
    let all = READERS * AT_ONCE;
    Ok(match ended {
        n if n > all / 10 => format!("{MANY_ENDED}: {n} of {all}"),
        n => format!("{n} of {all} are refused or cut off"),
    })
}

/// A client with so many requests at once; curl makes one transfer of each number behind `#`, which the server does not see.
fn many(
    tenant: &Tenant<'_>,
    path: &str,
    options: &[&str],
    output: impl Into<Stdio>,
) -> std::io::Result<Child> {
    let parallel = AT_ONCE.to_string();
    let mut client = tenant.api.from_afar().command("GET", path, "");
    let transfers = [
        "--http2",
        "--parallel",
        "--parallel-max",
        &parallel,
        "--no-progress-meter",
    ];
    client
        .args(transfers)
        .args(options)
        .args(["--output", "/dev/null"]);
    client.stdin(Stdio::null()).stdout(output).spawn()
}
