use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::kinds::named;
use crate::store::{Limits, LocalStore};

async fn objects() -> Objects {
    let store = Arc::new(LocalStore::in_memory(Limits::default()).unwrap());
    let objects = Objects::new(store, "10.86.0.0/28".parse().unwrap());
    objects
        .create(
            row("Namespace"),
            "",
            json!({"metadata": {"name": "default"}}),
            USER,
        )
        .await
        .unwrap();
    objects
}

const USER: WriteOptions = WriteOptions {
    dry_run: false,
    validation: FieldValidation::Strict,
    system: false,
};

fn row(kind: &str) -> &'static Kind {
    named(kind).unwrap()
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 5060, "protocol": "UDP"}]}})
}

#[tokio::test]
async fn create_sets_what_the_server_owns() {
    let o = objects().await;
    let input = json!({"metadata": {"generateName": "x-", "uid": "mine", "resourceVersion": "7"}, "spec": {"package": "p", "version": "1.0.0"},
        "status": {"replicas": 9}});
    let made = o
        .create(row("NetworkFunction"), "default", input, USER)
        .await
        .unwrap()
        .object;
    let metadata = &made["metadata"];
    assert!(
        metadata["name"].as_str().unwrap().starts_with("x-") && metadata["name"].as_str().unwrap().len() == 7
    );
    assert_ne!(metadata["uid"], "mine");
    assert_eq!(
        (&metadata["generation"], &metadata["namespace"]),
        (&json!(1), &json!("default"))
    );
    assert_eq!(
        made["status"].get("replicas"),
        None,
        "the status is not set by a create"
    );
    assert_eq!(made["spec"]["replicas"], 1, "defaults are visible");
    let missing = o
        .create(row("ConfigMap"), "nowhere", config_map("c"), USER)
        .await
        .unwrap_err();
    assert_eq!((missing.code.as_u16(), missing.reason), (404, "NotFound"));
    let bad = o
        .create(row("ConfigMap"), "default", config_map("Bad_Name"), USER)
        .await
        .unwrap_err();
    assert_eq!((bad.code.as_u16(), bad.reason), (422, "Invalid"));
}

#[tokio::test]
async fn updates_conflict_and_count_generations() {
    let o = objects().await;
    let (nf, kind) = (
        json!({"metadata": {"name": "f"}, "spec": {"package": "p", "version": "1.0.0"}}),
        row("NetworkFunction"),
    );
    let first = o.create(kind, "default", nf, USER).await.unwrap().object;
    let mut change = first.clone();
    change["spec"]["replicas"] = json!(3);
    change["status"] = json!({"replicas": 3});
    let second = o
        .update(kind, "default", "f", change.clone(), Target::Main, USER)
        .await
        .unwrap()
        .object;
    assert_eq!(
        (
            &second["metadata"]["generation"],
            second["status"].get("replicas")
        ),
        (&json!(2), None)
    );
    let stale = o
        .update(kind, "default", "f", change, Target::Main, USER)
        .await
        .unwrap_err();
    assert_eq!((stale.code.as_u16(), stale.reason), (409, "Conflict"));
    let mut status = second.clone();
    status["status"] = json!({"replicas": 2});
    status["spec"]["replicas"] = json!(99);
    let third = o
        .update(kind, "default", "f", status, Target::Status, USER)
        .await
        .unwrap()
        .object;
    assert_eq!(
        (&third["spec"]["replicas"], &third["status"]["replicas"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(third["metadata"]["generation"], 2);
    let same = o
        .update(kind, "default", "f", third.clone(), Target::Main, USER)
        .await
        .unwrap()
        .object;
    assert_eq!(
        same["metadata"]["resourceVersion"], third["metadata"]["resourceVersion"],
        "no change, no write"
    );
    let got = o.get(kind, "default", "f").await.unwrap();
    assert_eq!(got, third);
    let options = WriteOptions {
        dry_run: true,
        ..USER
    };
    let mut dry = third.clone();
    dry["spec"]["replicas"] = json!(7);
    assert_eq!(
        o.update(kind, "default", "f", dry, Target::Main, options)
            .await
            .unwrap()
            .object["spec"]["replicas"],
        7
    );
    assert_eq!(o.get(kind, "default", "f").await.unwrap(), third);
}

#[tokio::test]
async fn concurrent_changes_are_all_kept() {
    let o = objects().await;
    o.create(row("ConfigMap"), "default", config_map("c"), USER)
        .await
        .unwrap();
    let writers = (0..12).map(|i| {
        let o = o.clone();
        async move {
            let change = |old: &Value| {
                let mut new = old.clone();
                new["data"][format!("k{i}")] = json!("v");
                new["metadata"].as_object_mut().unwrap().remove("resourceVersion");
                Ok(new)
            };
            o.modify(row("ConfigMap"), "default", "c", Target::Main, USER, change)
                .await
                .unwrap();
        }
    });
    futures::future::join_all(writers).await;
    let got = o.get(row("ConfigMap"), "default", "c").await.unwrap();
    assert_eq!(got["data"].as_object().unwrap().len(), 13);
}

#[tokio::test]
async fn finalizers_and_grace_hold_an_object() {
    let o = objects().await;
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["gantry.dev/x"]);
    o.create(row("ConfigMap"), "default", held, USER).await.unwrap();
    let now = DeleteOptions::default();
    let Deleted::Marked(marked) = o.delete(row("ConfigMap"), "default", "held", &now).await.unwrap() else {
        panic!("finalizers hold it")
    };
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let mut free = marked;
    free["metadata"]["finalizers"] = json!([]);
    o.update(row("ConfigMap"), "default", "held", free, Target::Main, USER)
        .await
        .unwrap();
    assert_eq!(
        o.get(row("ConfigMap"), "default", "held")
            .await
            .unwrap_err()
            .reason,
        "NotFound"
    );

    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    o.create(row("Pod"), "default", pod, USER).await.unwrap();
    let Deleted::Marked(marked) = o.delete(row("Pod"), "default", "p", &now).await.unwrap() else {
        panic!("the node has to stop it")
    };
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let wrong = DeleteOptions {
        grace_period_seconds: Some(0),
        uid: Some("other".to_owned()),
        ..Default::default()
    };
    assert_eq!(
        o.delete(row("Pod"), "default", "p", &wrong)
            .await
            .unwrap_err()
            .reason,
        "Conflict"
    );
    let forced = DeleteOptions {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    assert!(matches!(
        o.delete(row("Pod"), "default", "p", &forced).await.unwrap(),
        Deleted::Gone(_)
    ));
}

#[tokio::test]
async fn a_younger_rule_on_metadata_stops_no_other_change() {
    let mut o = objects().await;
    o.limits.rules = false;
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["mine"]);
    let made = o.create(row("ConfigMap"), "default", held, USER).await.unwrap();
    o.limits.rules = true;
    let mut changed = made.object;
    changed["data"]["a"] = json!("c");
    let update = async |object| {
        let written = o.update(row("ConfigMap"), "default", "held", object, Target::Main, USER);
        written.await.map(|written| written.object)
    };
    let mut changed = update(changed).await.unwrap();
    changed["metadata"]["finalizers"] = json!(["mine", "yours"]);
    let error = update(changed).await.unwrap_err();
    let causes = error.details["causes"].as_array().unwrap();
    let fields: Vec<_> = causes.iter().map(|c| &c["field"]).collect();
    assert_eq!(fields, ["metadata.finalizers[1]"]);
}

#[tokio::test]
async fn service_addresses_are_never_shared() {
    let o = objects().await;
    let made = (0..13).map(|i| {
        let o = o.clone();
        async move {
            o.create(row("Service"), "default", service(&format!("s{i}")), USER)
                .await
        }
    });
    let made = futures::future::join_all(made).await;
    let addresses: HashSet<_> = made
        .into_iter()
        .map(|s| {
            s.unwrap().object["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 13, "{addresses:?}");
    let full = o
        .create(row("Service"), "default", service("more"), USER)
        .await
        .unwrap_err();
    assert!(full.message.contains("no free service address"), "{full}");
    let mut taken = service("taken");
    taken["spec"]["clusterIP"] = json!(addresses.iter().next().unwrap());
    assert_eq!(
        o.create(row("Service"), "default", taken, USER)
            .await
            .unwrap_err()
            .reason,
        "Invalid"
    );
    o.delete(row("Service"), "default", "s1", &DeleteOptions::default())
        .await
        .unwrap();
    o.create(row("Service"), "default", service("more"), USER)
        .await
        .unwrap();
}

#[tokio::test]
async fn unknown_fields_by_wish() {
    let o = objects().await;
    let with = |name: &str, validation| {
        (
            json!({"metadata": {"name": name}, "dta": {"a": "b"}}),
            WriteOptions { validation, ..USER },
        )
    };
    let (input, options) = with("a", FieldValidation::Strict);
    let error = o
        .create(row("ConfigMap"), "default", input, options)
        .await
        .unwrap_err();
    assert!(error.message.contains("unknown field \"dta\""), "{error}");
    let (input, options) = with("b", FieldValidation::Warn);
    let written = o
        .create(row("ConfigMap"), "default", input, options)
        .await
        .unwrap();
    assert_eq!(written.warnings, ["unknown field \"dta\""]);
    assert_eq!(written.object.get("dta"), None);
    let (input, options) = with("c", FieldValidation::Ignore);
    assert!(
        o.create(row("ConfigMap"), "default", input, options)
            .await
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[tokio::test]
async fn the_namespaces_that_are_always_there_stay() {
    let o = objects().await;
    for name in ["default", "other"] {
        let input = json!({"metadata": {"name": name}});
        // The first may be there already.
        let _ = o.create(row("Namespace"), "", input, USER).await;
    }
    let delete = async |name| {
        let options = DeleteOptions::default();
        let done = o.delete(row("Namespace"), "", name, &options).await;
        done.map(drop).map_err(|error| error.code)
    };
    assert_eq!(delete("default").await, Err(http::StatusCode::FORBIDDEN));
    assert_eq!(delete("other").await, Ok(()));
}

#[tokio::test]
async fn what_is_no_object_or_could_be_no_file_is_refused() {
    let o = objects().await;
    let map = row("ConfigMap");
    o.create(map, "default", config_map("a"), USER).await.unwrap();
    for input in [json!([]), json!("x"), json!(7)] {
        let error = o
            .update(map, "default", "a", input, Target::Main, USER)
            .await
            .unwrap_err();
        assert_eq!(error.code, http::StatusCode::BAD_REQUEST);
    }
    for key in ["../x", "a/b", "..", ""] {
        let input = json!({"metadata": {"name": "b"}, "data": {key: "b"}});
        let error = o.create(map, "default", input, USER).await.unwrap_err();
        assert_eq!(error.code, http::StatusCode::UNPROCESSABLE_ENTITY, "{key}");
    }
}

#[tokio::test]
async fn what_a_live_pod_cannot_follow_is_refused() {
    let o = objects().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let made = o.create(row("Pod"), "default", pod, USER).await.unwrap().object;
    let mut labelled = made.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let made = o
        .update(row("Pod"), "default", "p", labelled, Target::Main, USER)
        .await
        .unwrap()
        .object;
    let mut other = made;
    other["spec"]["containers"][0]["image"] = json!("i:2");
    let error = o
        .update(row("Pod"), "default", "p", other, Target::Main, USER)
        .await
        .unwrap_err();
    assert_eq!((error.code.as_u16(), error.reason), (422, "Invalid"));
    assert!(error.message.contains("make a new pod"), "{error}");
}
