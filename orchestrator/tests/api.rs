//! The API over HTTP: watches, pages, limits, errors, start and stop.

mod common;

use std::time::Duration;

use common::agent::{Reply, send};
use common::{Server, config};
use futures::StreamExt;
use gantry_orchestrator::apiserver::{ObjectLimits, WriteOptions};
use gantry_orchestrator::kinds::named;
use gantry_orchestrator::server::{Controllers, Parts, ServerError, serve};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn get(server: &Server, path: &str) -> (u16, Value) {
    let reply = send(server, "GET", path, "", String::new()).await;
    let code = reply.status().as_u16();
    let bytes = reply.into_body().collect().await.unwrap().to_bytes();
    (
        code,
        serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))),
    )
}

async fn config_maps(server: &Server, names: std::ops::Range<usize>) {
    for i in names {
        let input = json!({"metadata": {"name": format!("c{i:04}"), "labels": {"n": i.to_string()}}, "data": {"x": "y".repeat(2000)}});
        server
            .objects
            .create(
                named("ConfigMap").unwrap(),
                "default",
                input,
                WriteOptions::default(),
            )
            .await
            .unwrap();
    }
}

/// Reads lines of a watch until one matches; returns all of them.
async fn events(reply: Reply, until: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut body = reply.into_body().into_data_stream();
    let (mut text, mut seen) = (Vec::new(), Vec::new());
    loop {
        let chunk = tokio::time::timeout(Duration::from_secs(20), body.next())
            .await
            .expect("in time");
        text.extend_from_slice(&chunk.expect("more of the stream").unwrap());
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let event: Value = serde_json::from_slice(&text[..end]).unwrap();
            text.drain(..=end);
            seen.push(event);
            if until(seen.last().unwrap()) {
                return seen;
            }
        }
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn a_watcher_that_does_not_read_holds_nobody_up() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let path = format!("{MAPS}?watch=1");
        let slow = send(&server, "GET", &path, "", String::new()).await;
        let fast = send(&server, "GET", &path, "", String::new()).await;
        let writes = config_maps(&server, 0..500);
        let last = |e: &Value| e["object"]["metadata"]["name"] == "c0499";
        let (_, seen) = tokio::join!(writes, events(fast, last));
        assert_eq!(seen.len(), 500);
        assert!(
            seen.iter()
                .all(|e| e["type"] == "ADDED" && e["object"]["metadata"]["resourceVersion"].is_string())
        );
        assert_eq!(
            events(slow, last).await,
            seen,
            "the slow one gets all of it, later"
        );
    });
}

#[test]
fn watches_resume_select_and_mark() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        config_maps(&server, 0..3).await;
        let (_, list) = get(&server, MAPS).await;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        config_maps(&server, 3..5).await;
        let reply = send(
            &server,
            "GET",
            &format!("{MAPS}?watch=1&resourceVersion={version}"),
            "",
            String::new(),
        )
        .await;
        let seen = events(reply, |e| e["object"]["metadata"]["name"] == "c0004").await;
        assert_eq!(seen.len(), 2);
        // An object that stops to match is gone for the watcher.
        let path = format!("{MAPS}?watch=1&labelSelector=n%3D1");
        let reply = send(&server, "GET", &path, "", String::new()).await;
        let patch = r#"{"metadata":{"labels":{"n":"other"}}}"#;
        send(
            &server,
            "PATCH",
            &format!("{MAPS}/c0001"),
            "application/merge-patch+json",
            patch.into(),
        )
        .await;
        let seen = events(reply, |e| e["type"] == "DELETED").await;
        assert_eq!(
            seen.iter()
                .map(|e| e["type"].as_str().unwrap())
                .collect::<Vec<_>>(),
            ["ADDED", "DELETED"]
        );
        let path = format!(
            "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        );
        let seen = events(send(&server, "GET", &path, "", String::new()).await, |e| {
            e["type"] == "BOOKMARK"
        })
        .await;
        assert_eq!(seen.len(), 6);
        assert_eq!(
            seen[5]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        server
            .objects
            .store()
            .compact(server.objects.store().revision())
            .await
            .unwrap();
        let path = format!("{MAPS}?watch=1&resourceVersion={version}");
        let (code, status) = get(&server, &path).await;
        assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    });
}

#[test]
fn lists_in_pages_and_streamed() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_, empty) = get(&server, MAPS).await;
        assert_eq!(empty["items"], json!([]));
        config_maps(&server, 0..120).await;
        let (_, all) = get(&server, MAPS).await;
        assert_eq!(all["items"].as_array().unwrap().len(), 120);
        let (_, first) = get(&server, &format!("{MAPS}?limit=100")).await;
        assert_eq!(first["metadata"]["remainingItemCount"], 20);
        let token = first["metadata"]["continue"].as_str().unwrap();
        let (_, second) = get(&server, &format!("{MAPS}?limit=100&continue={token}")).await;
        assert_eq!(second["items"].as_array().unwrap().len(), 20);
        assert_eq!(
            second["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        let (code, _) = get(&server, &format!("{MAPS}?continue=nonsense")).await;
        assert_eq!(code, 400);
    });
}

#[test]
fn errors_are_status_objects() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for (path, code, reason) in [
            ("/api/v1/nothings", 404, "NotFound"),
            ("/api/v1/namespaces/default/pods/none", 404, "NotFound"),
            ("/api/v1/pods?fieldSelector=spec.foo%3D1", 400, "BadRequest"),
            ("/nothing", 404, "NotFound"),
            ("/gantry/v1/explain/default/none", 404, "NotFound"),
        ] {
            let (found, status) = get(&server, path).await;
            assert_eq!(
                (found, &status["reason"], &status["kind"]),
                (code, &json!(reason), &json!("Status")),
                "{path}"
            );
        }
        let large = json!({"metadata": {"name": "l"}, "data": {"x": "y".repeat(4 << 20)}}).to_string();
        assert_eq!(
            send(&server, "POST", MAPS, "application/json", large)
                .await
                .status(),
            413
        );
        assert_eq!(
            send(&server, "POST", MAPS, "application/yaml", "a: b".into())
                .await
                .status(),
            415
        );
        assert_eq!(
            send(&server, "POST", MAPS, "application/json", "{".into())
                .await
                .status(),
            400
        );
        assert_eq!(
            send(
                &server,
                "PATCH",
                &format!("{MAPS}/c"),
                "application/apply-patch+yaml",
                "{}".into()
            )
            .await
            .status(),
            415
        );
        assert_eq!(
            send(&server, "PUT", MAPS, "application/json", "{}".into())
                .await
                .status(),
            405
        );
        let reply = send(
            &server,
            "POST",
            "/gantry/v1/plan",
            "application/json",
            "[{}, {}]".into(),
        )
        .await;
        assert_eq!(reply.status(), 200);
    });
}

#[test]
fn an_eviction_cuts_no_sessions_off() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let pods = "/api/v1/namespaces/default/pods";
        let body = |value: Value| value.to_string();
        let function = json!([{"apiVersion": "gantry.dev/v1", "kind": "NetworkFunction", "name": "f", "uid": "f", "controller": true}]);
        for (name, method, owners) in [
            ("calls", "sip-dialogs", function),
            ("alone", "sip-dialogs", json!([])),
            ("none", "none", json!([])),
        ] {
            let extras = json!({"drain": {"method": method}}).to_string();
            let metadata = json!({"name": name, "annotations": {"gantry.dev/extras": extras}, "ownerReferences": owners});
            let pod = json!({"metadata": metadata,
                "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
            let made = send(&server, "POST", pods, "application/json", body(pod)).await;
            assert_eq!(made.status(), 201);
        }
        let evict = async |name: &str, options: Value| {
            let eviction = json!({"metadata": {"name": name}, "deleteOptions": options});
            let path = format!("{pods}/{name}/eviction");
            let code = send(&server, "POST", &path, "application/json", body(eviction))
                .await
                .status()
                .as_u16();
            let (_, pod) = get(&server, &format!("{pods}/{name}")).await;
            let metadata = &pod["metadata"];
            let has = |name: &str| metadata["annotations"][name].is_string();
            let marks = [has("gantry.dev/evict"), has("gantry.dev/drain")];
            (code, marks, metadata["deletionTimestamp"].is_string())
        };
        let (unmarked, marked, draining) = ([false, false], [true, false], [false, true]);
        let other = json!({"preconditions": {"uid": "other"}});
        let dry = json!({"dryRun": ["All"]});
        assert_eq!(evict("calls", other).await, (409, unmarked, false));
        assert_eq!(evict("calls", dry).await, (201, unmarked, false));
        assert_eq!(evict("calls", json!({})).await, (429, marked, false));
        assert_eq!(evict("calls", json!({})).await, (429, marked, false));
        assert_eq!(evict("alone", json!({})).await, (429, draining, false));
        assert_eq!(evict("none", json!({})).await, (201, unmarked, true));
    });
}

async fn never(_: Parts) -> Result<Controllers, ServerError> {
    panic!("it must not come this far")
}

#[test]
fn a_taken_port_is_one_clear_error_and_an_open_watch_holds_no_stop_up() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let other = tempfile::tempdir().unwrap();
    let error = runtime
        .block_on(serve(
            config(other.path().to_owned(), server.address),
            CancellationToken::new(),
            never,
        ))
        .unwrap_err();
    assert!(error.to_string().contains("the address is in use"), "{error}");
    let _watch = runtime.block_on(send(
        &server,
        "GET",
        &format!("{MAPS}?watch=1"),
        "",
        String::new(),
    ));
    server.stop();
}

async fn change(
    server: &Server,
    method: &str,
    path: &str,
    kind: &str,
    body: Value,
) -> (u16, Vec<String>, Value) {
    let reply = send(server, method, path, kind, body.to_string()).await;
    let warnings = reply.headers().get_all("warning").iter();
    let warnings = warnings.map(|w| w.to_str().unwrap().to_owned()).collect();
    let code = reply.status().as_u16();
    let bytes = reply.into_body().collect().await.unwrap().to_bytes();
    (code, warnings, serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn a_rule_that_is_younger_than_an_object_stands_only_in_the_way_of_what_breaks_it() {
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    const MERGE: &str = "application/merge-patch+json";
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let container = |image: &str, port: u16| {
            json!([{"name": "c", "image": image, "ports": [{"containerPort": 80, "hostPort": port}]}])
        };
        let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": container("i:1", 80)}}}});
        let (code, _, status) = change(&server, "POST", DEPLOYMENTS, "application/json", deployment.clone()).await;
        assert_eq!(code, 422);
        assert!(status["message"].as_str().unwrap().contains("use a Service, or hostNetwork"), "{status}");
        // As a version without the rule took it.
        let lax = ObjectLimits { rules: false, ..Default::default() };
        let kind = named("Deployment").unwrap();
        let objects = server.objects.clone().with_limits(lax);
        objects.create(kind, "default", deployment, WriteOptions::default()).await.unwrap();
        let path = format!("{DEPLOYMENTS}/d");
        let spec = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        for (path, patch) in [
            (path.clone(), json!({"metadata": {"labels": {"l": "m"}}})),
            (format!("{path}/scale"), json!({"spec": {"replicas": 2}})),
            (path.clone(), spec(container("i:2", 80))),
        ] {
            let (code, warnings, answer) = change(&server, "PATCH", &path, MERGE, patch).await;
            assert_eq!(code, 200, "{answer}");
            let told = warnings.iter().any(|w| w.contains("ports[0].hostPort has no effect"));
            assert!(told || path.ends_with("scale"), "{warnings:?}");
        }
        for worse in [container("i:2", 81), json!([container("i:2", 80)[0], {"name": "d", "image": "i", "volumeDevices": [{"name": "v", "devicePath": "/d"}]}])] {
            let (code, _, answer) = change(&server, "PATCH", &path, MERGE, spec(worse)).await;
            assert_eq!(code, 422, "{answer}");
        }
    });
}

#[test]
fn endpoints_that_are_not_pods_are_refused() {
    const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let slice = json!({"metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]});
        let (code, _, status) = change(&server, "POST", SLICES, "application/json", slice.clone()).await;
        assert_eq!(code, 422);
        assert!(status["message"].as_str().unwrap().contains("give the Service a `selector`"), "{status}");
        let lax = ObjectLimits { rules: false, ..Default::default() };
        let kind = named("EndpointSlice").unwrap();
        let objects = server.objects.clone().with_limits(lax);
        objects.create(kind, "default", slice, WriteOptions::default()).await.unwrap();
        let path = format!("{SLICES}/s");
        for (patch, expected) in [
            (json!({"metadata": {"labels": {"l": "m"}}}), 200),
            (json!({"endpoints": [{"addresses": ["192.0.2.2"]}]}), 422),
        ] {
            let (code, _, answer) = change(&server, "PATCH", &path, "application/merge-patch+json", patch).await;
            assert_eq!(code, expected, "{answer}");
        }
        assert_eq!(send(&server, "DELETE", &path, "", String::new()).await.status(), 200);
    });
}
