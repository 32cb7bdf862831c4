use serde_json::{Value, json};

use super::*;

fn policy(level: Level, version: Option<u32>) -> Policy {
    Policy { level, version }
}

fn found(level: Level, spec: Value) -> String {
    let pod = json!({"metadata": {}, "spec": spec});
    list(&evaluate(&policy(level, None), &Subject::at(&pod, ""))).unwrap_or_default()
}

/// A pod that `restricted` takes, with other fields of its container's security context.
fn good(security: Value) -> Value {
    let mut context = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
    let fields = context.as_object_mut().unwrap();
    fields.extend(security.as_object().unwrap().clone());
    json!({"containers": [{"name": "c", "securityContext": context}]})
}

#[test]
fn a_pod_that_says_nothing_is_told_all_that_restricted_wants() {
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c"}]}});
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let words = "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
        securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
        securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
        securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
        securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    assert_eq!(judge("Pod", &pod, &labels).refusal.as_deref(), Some(words));
    assert_eq!(found(Level::Restricted, good(json!({}))), "");
    assert_eq!(found(Level::Baseline, pod["spec"].clone()), "");
}

/// What `baseline` refuses: a spec for each control, and the words.
fn refused_at_baseline() -> Vec<(Value, String)> {
    let of_containers = |security: Value| {
        json!({"initContainers": [{"name": "a", "securityContext": security}],
            "containers": [{"name": "b", "securityContext": security}]})
    };
    let both = "containers \"a\", \"b\" must not";
    vec![
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)".to_owned(),
        ),
        (
            of_containers(json!({"privileged": true})),
            format!("privileged ({both} set securityContext.privileged=true)"),
        ),
        (
            of_containers(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_ADMIN"]}})),
            format!("non-default capabilities ({both} include \"NET_ADMIN\", \"SYS_ADMIN\" in securityContext.capabilities.add)"),
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]}),
            "hostPath volumes (volume \"v\")".to_owned(),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 0}]}]}),
            "hostPort (container \"c\" uses hostPort 80)".to_owned(),
        ),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")".to_owned(),
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")".to_owned(),
        ),
        (
            of_containers(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
            "seLinuxOptions (containers \"a\", \"b\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)".to_owned(),
        ),
        (
            of_containers(json!({"procMount": "Unmasked"})),
            format!("procMount ({both} set securityContext.procMount to \"Unmasked\")"),
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")".to_owned(),
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
            "forbidden sysctls (kernel.msgmax)".to_owned(),
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)".to_owned(),
        ),
    ]
}

#[test]
fn each_control_speaks() {
    for (spec, words) in refused_at_baseline() {
        assert_eq!(found(Level::Baseline, spec), words);
    }
    for (security, words) in [
        (
            json!({"runAsNonRoot": false}),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            json!({"runAsUser": 0}),
            "runAsUser=0 (container \"c\" must not set runAsUser=0)",
        ),
        (
            json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}),
            "unrestricted capabilities (container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
            "",
        ),
    ] {
        assert_eq!(found(Level::Restricted, good(security)), words);
    }
    let mut volumes = good(json!({}));
    volumes["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {}}, {"name": "s", "secret": {}}]);
    assert_eq!(
        found(Level::Restricted, volumes),
        "restricted volume types (volumes \"v\", \"n\" use restricted volume types \"hostPath\", \"nfs\")"
    );
}

/// `over` laid over `base`, field by field; each member of a list over the first one of the other.
fn overlaid(base: &Value, over: Value) -> Value {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            let mut all = base.clone();
            for (key, value) in over {
                let below = all.get(&key).cloned().unwrap_or_default();
                all.insert(key, overlaid(&below, value));
            }
            Value::Object(all)
        }
        (Value::Array(base), Value::Array(over)) => {
            let below = base.first().cloned().unwrap_or_default();
            over.into_iter().map(|value| overlaid(&below, value)).collect()
        }
        (_, over) => over,
    }
}

/// All that `restricted` asks for beyond `baseline` is there, so that it refuses for the same reason or not at all.
#[test]
fn what_baseline_refuses_restricted_refuses() {
    let host = json!({"path": "/"});
    let sources = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "nfs",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let volumes = sources.map(|source| json!({"volumes": [{"name": "v", source: {}, "hostPath": host}]}));
    let specs = refused_at_baseline()
        .into_iter()
        .map(|(spec, _)| spec)
        .chain(volumes);
    let kinds = [
        json!({}),
        json!({"os": {"name": "windows"}}),
        json!({"hostUsers": false}),
    ];
    let mut refused = 0;
    for spec in specs {
        for kind in &kinds {
            let mut pod = good(json!({}));
            pod["initContainers"] = pod["containers"].clone();
            let spec = overlaid(&overlaid(&pod, spec.clone()), kind.clone());
            let pod = json!({"spec": spec});
            for minor in 0..=labels::NEWEST {
                let found = |level| evaluate(&policy(level, Some(minor)), &Subject::at(&pod, ""));
                let baseline = found(Level::Baseline);
                refused += baseline.len();
                let restricted = found(Level::Restricted);
                assert!(baseline.is_empty() || !restricted.is_empty(), "1.{minor} {spec}");
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_volume_is_judged_by_all_that_it_is_made_of() {
    let of = |volume: Value| {
        let mut pod = good(json!({}));
        pod["volumes"] = json!([volume]);
        found(Level::Restricted, pod)
    };
    for allowed in [
        "image",
        "csi",
        "persistentVolumeClaim",
        "ephemeral",
        "configMap",
        "projected",
    ] {
        assert_eq!(of(json!({"name": "v", allowed: {}})), "");
        let both = of(json!({"name": "v", allowed: {}, "hostPath": {"path": "/"}}));
        assert_eq!(
            both,
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")"
        );
    }
    assert!(of(json!({"name": "v"})).contains("\"unknown\""));
}

#[test]
fn older_versions_know_less_and_a_user_namespace_allows_more() {
    let pod = json!({"spec": {"containers": [{"name": "c", "tcpSocket": {}, "livenessProbe": {"tcpSocket": {"host": "h"}}}]}});
    let violations = |minor| evaluate(&policy(Level::Baseline, Some(minor)), &Subject::at(&pod, "")).len();
    assert_eq!([violations(33), violations(34), violations(99)], [0, 1, 1]);
    let mut root = good(json!({"runAsNonRoot": false, "runAsUser": 0}));
    root["hostUsers"] = json!(false);
    assert_eq!(found(Level::Restricted, root), "");
}

#[test]
fn labels_say_who_is_judged_how() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/warn": "restricted"});
    assert_eq!(Policy::of(&labels, Mode::Enforce).to_string(), "baseline:v1.30");
    assert_eq!(Policy::of(&labels, Mode::Audit), Policy::default());
    let template = json!({"spec": {"template": {"spec": {"hostPID": true, "containers": [{"name": "c"}]}}}});
    let answers = judge("Deployment", &template, &labels);
    assert!(answers.refusal.is_none() && answers.audit.is_none());
    assert!(
        answers
            .warning
            .unwrap()
            .starts_with("would violate PodSecurity \"restricted:latest\": host namespaces")
    );
    assert_eq!(judge("ConfigMap", &template, &labels), Answers::default());
    assert!(label_errors(&labels).is_empty());
    let wrong = json!({"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "1.30"});
    let keys: Vec<_> = label_errors(&wrong).into_iter().map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        [
            "pod-security.kubernetes.io/enforce",
            "pod-security.kubernetes.io/warn-version"
        ]
    );
    assert_eq!(Policy::of(&wrong, Mode::Enforce).level, Level::Restricted);
}
