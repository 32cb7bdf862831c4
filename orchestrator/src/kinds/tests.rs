use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::store::{Revision, Version};

#[test]
fn rows_are_distinct_and_findable() {
    for kind in KINDS {
        assert!(std::ptr::eq(
            by_plural(kind.group, kind.version, kind.plural).unwrap(),
            kind
        ));
        assert!(std::ptr::eq(named(kind.kind).unwrap(), kind));
        assert_eq!(kind.singular, kind.kind.to_lowercase());
        assert!(!kind.columns.is_empty(), "{} has no columns", kind.kind);
        let same = |k: &&Kind| k.short.iter().any(|s| kind.short.contains(s));
        assert!(
            KINDS.iter().filter(same).count() <= 1,
            "{} shares a short name",
            kind.kind
        );
    }
}

#[test]
fn keys_do_not_overlap() {
    let pods = named("Pod").unwrap();
    assert_eq!(pods.key("default", "a"), "/registry/core/pods/default/a");
    assert_eq!(
        named("Node").unwrap().key("ignored", "n1"),
        "/registry/core/nodes/n1"
    );
    assert_eq!(
        named("Operation").unwrap().prefix(Some("x")),
        "/registry/gantry.dev/operations/x/"
    );
}

fn sample(kind: &Kind) -> Value {
    let spec = match kind.kind {
        "NfPackage" => {
            json!({"package":"p","version":"1.0.0","family":"ims","role":"P-CSCF","plane":"signalling",
            "containers":[{"name":"c","image":"i","cpu":{"mode":"shared","request":"500m"},"memory":"64Mi"}]})
        }
        "NetworkFunction" => json!({"package":"p","version":"1.0.0"}),
        "NetworkService" => json!({"functions":[]}),
        "Network" => json!({"type":"pod","cidr":"10.0.0.0/16","serviceCidr":"10.1.0.0/16"}),
        "NodeTopology" => return Value::Null,
        "Operation" => {
            json!({"function":"f","generation":1,"kinds":["Scale"],"asked":"x","to":{"package":"p","version":"1.0.0"}})
        }
        "Pod" => json!({"containers":[{"name":"c","image":"i"}]}),
        "ReplicaSet" | "Deployment" => json!({"selector":{"matchLabels":{"a":"b"}},
            "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}),
        "Service" => json!({"ports":[{"port":80}]}),
        "Node" | "Namespace" | "Lease" => json!({}),
        _ => Value::Null,
    };
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "x"}});
    if kind.kind == "Event" {
        object["involvedObject"] = json!({"kind":"Pod","name":"x"});
    }
    if kind.kind == "EndpointSlice" {
        object["addressType"] = json!("IPv4");
        object["endpoints"] = json!([]);
    }
    if !spec.is_null() {
        object["spec"] = spec;
    }
    object
}

#[test]
fn every_kind_decodes_defaults_and_stays_the_same() {
    for kind in KINDS {
        let input = sample(kind);
        if input.is_null() {
            continue;
        }
        let mut known = (kind.decode)(&input).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
        assert_eq!(
            unknown_fields(&input, &known),
            Vec::<String>::new(),
            "{}",
            kind.kind
        );
        (kind.default)(&mut known);
        let again = (kind.decode)(&known).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
        assert_eq!(again, known, "{} is stable after defaulting", kind.kind);
        for column in kind.columns {
            column.value(&known, time::OffsetDateTime::now_utc());
        }
    }
}

#[test]
fn a_zero_of_a_probe_is_as_good_as_nothing() {
    let pod = named("Pod").unwrap();
    let with = |numbers: Value| {
        let mut input = sample(pod);
        let probe = &mut input["spec"]["containers"][0]["livenessProbe"];
        *probe = json!({"exec": {"command": ["true"]}});
        let fields = probe.as_object_mut().unwrap();
        fields.extend(numbers.as_object().unwrap().clone());
        let mut known = (pod.decode)(&input).unwrap();
        (pod.default)(&mut known);
        [
            "periodSeconds",
            "timeoutSeconds",
            "successThreshold",
            "failureThreshold",
        ]
        .map(|field| known["spec"]["containers"][0]["livenessProbe"][field].clone())
    };
    let zeros =
        json!({"periodSeconds": 0, "timeoutSeconds": 0, "successThreshold": 0, "failureThreshold": 0});
    assert_eq!(with(zeros), [10, 1, 1, 3]);
    assert_eq!(with(json!({})), [10, 1, 1, 3]);
    assert_eq!(
        with(json!({"periodSeconds": 2, "timeoutSeconds": -1})),
        [2, -1, 1, 3]
    );
}

#[test]
fn unknown_fields_are_named() {
    let pod = named("Pod").unwrap();
    let mut input = sample(pod);
    input["spec"]["containers"][0]["imagee"] = json!("x");
    input["bogus"] = json!(1);
    let known = (pod.decode)(&input).unwrap();
    assert_eq!(
        unknown_fields(&input, &known),
        ["bogus", "spec.containers[0].imagee"]
    );
}

#[test]
fn services_that_no_node_could_serve_are_refused() {
    let wrong = |ports: Value| {
        let kind = named("Service").unwrap();
        let mut object = (kind.decode)(&json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "x"}, "spec": {"ports": ports}}))
        .unwrap();
        (kind.default)(&mut object);
        let mut errors = Vec::new();
        (kind.validate)(&object, None, &Context::default(), &mut errors);
        let text = |e: FieldError| format!("{}: {} {}", e.field, e.message, e.reason);
        errors.into_iter().map(text).collect::<Vec<_>>()
    };
    let twice =
        json!([{"name": "a", "port": 70, "targetPort": 8080}, {"name": "b", "port": 70, "protocol": "TCP"}]);
    assert_eq!(
        wrong(twice),
        ["spec.ports[1]: Duplicate value: {\"port\":70,\"protocol\":\"TCP\"} FieldValueDuplicate"]
    );
    let both = json!([{"name": "a", "port": 70}, {"name": "a", "port": 70, "protocol": "UDP"}]);
    assert_eq!(
        wrong(both),
        ["spec.ports[1].name: Duplicate value: \"a\" FieldValueDuplicate"]
    );
    for name in ["Web", "a_b", "-a", "a.b"] {
        let said = wrong(json!([{"name": name, "port": 70}]));
        assert!(said[0].starts_with("spec.ports[0].name: "), "{name}: {said:?}");
    }
    let sctp = |target: Value| json!([{"port": 38412, "protocol": "SCTP", "targetPort": target}]);
    assert!(wrong(sctp(json!(36412)))[0].starts_with("spec.ports[0].targetPort: SCTP keeps its port"));
    for target in [json!(38412), json!("n2")] {
        assert_eq!(wrong(sctp(target)), Vec::<String>::new());
    }
}

#[test]
fn a_workload_selects_what_it_makes() {
    for kind in ["ReplicaSet", "Deployment"] {
        let kind = named(kind).unwrap();
        let refused = |operator: &str, values: Value| {
            let mut object = sample(kind);
            object["spec"]["selector"] =
                json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
            let mut errors = Vec::new();
            (kind.validate)(&object, None, &Context::default(), &mut errors);
            errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        assert!(refused("In", json!(["b"])).is_empty());
        assert!(refused("Exists", json!([])).is_empty());
        let labels = ["spec.template.metadata.labels"];
        assert_eq!(refused("In", json!(["c"])), labels);
        assert_eq!(refused("DoesNotExist", json!([])), labels);
        let expression = "spec.selector.matchExpressions[0]";
        assert_eq!(refused("Like", json!(["b"])), [format!("{expression}.operator")]);
        assert_eq!(refused("NotIn", json!([])), [format!("{expression}.values")]);
    }
}

#[test]
fn a_rollout_has_more_time_than_a_pod() {
    let kind = named("Deployment").unwrap();
    let is_good = |deadline: &Value, ready: &Value| {
        let mut object = sample(kind);
        object["spec"]["progressDeadlineSeconds"] = deadline.clone();
        object["spec"]["minReadySeconds"] = ready.clone();
        (kind.default)(&mut object);
        let mut errors = Vec::new();
        (kind.validate)(&object, None, &Context::default(), &mut errors);
        errors.iter().all(|e| e.field != "spec.progressDeadlineSeconds")
    };
    for (deadline, ready, good) in [
        (json!(1), Value::Null, true),
        (json!(0), Value::Null, false),
        (json!(-1), Value::Null, false),
        (json!(11), json!(10), true),
        (json!(10), json!(10), false),
        (Value::Null, json!(599), true),
        (Value::Null, json!(600), false),
    ] {
        assert_eq!(is_good(&deadline, &ready), good, "{deadline} {ready}");
    }
}

#[test]
fn pods_and_templates_have_volumes_of_one_kind() {
    for (kind, path) in [
        ("Pod", "spec"),
        ("ReplicaSet", "spec.template.spec"),
        ("Deployment", "spec.template.spec"),
    ] {
        let kind = named(kind).unwrap();
        let refused = |volume: Value| {
            let mut object = sample(kind);
            let pointer = format!("/{}", path.replace('.', "/"));
            object.pointer_mut(&pointer).unwrap()["volumes"] = json!([volume]);
            let mut errors = Vec::new();
            (kind.validate)(&object, None, &Context::default(), &mut errors);
            errors.into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        assert!(refused(json!({"name": "v", "emptyDir": {}})).is_empty());
        assert_eq!(refused(json!({"name": "v"})), [format!("{path}.volumes[0]")]);
        let nfs = json!({"name": "v", "nfs": {"server": "s", "path": "/"}});
        assert_eq!(refused(nfs), [format!("{path}.volumes[0].nfs")]);
        let both = json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/tmp"}});
        assert_eq!(refused(both), [format!("{path}.volumes[0].hostPath")]);
    }
}

#[test]
fn a_key_of_a_config_map_has_one_value() {
    let kind = named("ConfigMap").unwrap();
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}, "binaryData": {"b": "MQ==", "c": "MQ=="}});
    let mut errors = Vec::new();
    (kind.validate)(&map, None, &Context::default(), &mut errors);
    let fields: Vec<_> = errors.into_iter().map(|e| e.field).collect();
    assert_eq!(fields, ["data[b]"]);
}

#[test]
fn addresses_that_controllers_give_out_are_theirs() {
    let refused = |kind: &str, new: &Value, old: Option<&Value>| -> Vec<String> {
        let mut errors = Vec::new();
        (named(kind).unwrap().validate)(new, old, &Context::default(), &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    };
    let node =
        |range: &str| json!({"metadata": {"name": "n"}, "spec": {"podCIDR": range, "podCIDRs": [range]}});
    let given = node("10.85.0.0/24");
    assert!(refused("Node", &given, Some(&given)).is_empty());
    for range in ["10.0.0.0/0", "garbage", ""] {
        let both = ["spec.podCIDR", "spec.podCIDRs"];
        assert_eq!(refused("Node", &node(range), Some(&given)), both, "{range}");
    }
    let mut pod = sample(named("Pod").unwrap());
    assert!(refused("Pod", &pod, None).is_empty());
    let before = pod.clone();
    pod["status"] = json!({"podIP": "10.85.0.1"});
    assert_eq!(refused("Pod", &pod, Some(&before)), ["status.podIP"]);
    assert!(refused("Pod", &pod, Some(&pod)).is_empty());
}

#[test]
fn ports_that_lead_nowhere_are_refused() {
    let service =
        |port: Value| json!({"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "ports": [port]}});
    let refused = |port: Value| -> Vec<String> {
        let mut errors = Vec::new();
        (named("Service").unwrap().validate)(&service(port), None, &Context::default(), &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    };
    assert!(refused(json!({"port": 80, "protocol": "UDP", "targetPort": "sip"})).is_empty());
    for protocol in ["tcp", "ICMP"] {
        assert_eq!(
            refused(json!({"port": 80, "protocol": protocol})),
            ["spec.ports[0].protocol"]
        );
    }
    assert_eq!(
        refused(json!({"port": 80, "targetPort": "80"})),
        ["spec.ports[0].targetPort"]
    );
    assert_eq!(refused(json!({"port": 0})), ["spec.ports[0].port"]);
}

#[test]
fn a_wrong_type_is_located() {
    let pod = named("Pod").unwrap();
    let mut input = sample(pod);
    input["spec"]["containers"][0]["ports"] = json!([{"containerPort": "eighty"}]);
    let error = (pod.decode)(&input).unwrap_err();
    assert!(error.field.contains("containers"), "{error}");
}

#[test]
fn names() {
    assert!(is_dns_label("a-1") && !is_dns_label("-a") && !is_dns_label("A") && !is_dns_label(""));
    assert!(is_dns_subdomain("pcscf-1.0.0") && !is_dns_subdomain("a..b"));
    let long = "x".repeat(70);
    assert!(label_problem(&long).ends_with("has 70 characters, a DNS label (RFC 1123) has at most 63"));
    assert!(subdomain_problem("A").contains("at most 253") && !subdomain_problem("A").contains("has 1 char"));
    assert!(is_qualified_name("gantry.dev/x") && is_qualified_name("app") && !is_qualified_name("/x"));
}

#[test]
fn ages_as_kubectl_prints_them() {
    let cases = [
        (5, "5s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 + 60, "3h1m"),
        (3 * 86400, "3d"),
    ];
    for (seconds, text) in cases {
        assert_eq!(human_age(seconds), text);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"]{1,5}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn stored_form_is_the_object_with_its_version(
        metadata in prop::collection::btree_map("[a-z]{1,6}", json_value(), 0..4),
        rest in prop::collection::btree_map("[b-l]{1,6}", json_value(), 0..4),
        revision in 1u64..1_000_000,
    ) {
        let mut object = Value::Object(rest.into_iter().collect());
        object["metadata"] = Value::Object(metadata.into_iter().collect());
        let version = Version {
            key: "/k".into(),
            value: codec::encode(&object),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            version: 1,
        };
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        prop_assert_eq!(&codec::decode(&version), &object);
        let mut wire = bytes::BytesMut::new();
        codec::splice(&version.value, version.mod_revision, &mut wire);
        prop_assert_eq!(&serde_json::from_slice::<Value>(&wire).unwrap(), &object);
    }
}

#[test]
fn every_container_makes_the_quality_of_service() {
    let of = |init: Value| {
        let sizes = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let spec = json!({"containers": [{"name": "c", "resources": sizes}], "initContainers": init});
        super::qos_class(&json!({"spec": spec}))
    };
    assert_eq!(of(json!([])), "Guaranteed");
    assert_eq!(
        of(json!([{"name": "i", "resources": {"requests": {"cpu": "50m"}}}])),
        "Burstable"
    );
    assert_eq!(of(json!([{"name": "i"}])), "Burstable");
    let nothing_asked = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0"}});
    assert_eq!(
        of(json!([{"name": "i", "resources": nothing_asked}])),
        "Burstable"
    );
}
