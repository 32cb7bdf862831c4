use serde_json::json;

use super::*;

fn fields(errors: Errors) -> Vec<String> {
    errors.into_iter().map(|e| e.field).collect()
}

/// Of a pod with a spec.
fn refused(spec: Value) -> Vec<String> {
    let mut errors = Errors::new();
    pod(&json!({"spec": spec}), "", &mut errors);
    fields(errors)
}

/// Of a pod with one container.
fn in_container(container: Value) -> Vec<String> {
    let prefix = "spec.containers[0].";
    let found = refused(json!({"containers": [container]}));
    let rest = found
        .iter()
        .map(|f| f.strip_prefix(prefix).unwrap_or(f).to_owned());
    rest.collect()
}

fn of_service(spec: Value) -> Vec<String> {
    let mut errors = Errors::new();
    service(&spec, &mut errors);
    fields(errors)
}

#[test]
fn what_protects_or_constrains_a_pod_and_is_not_done_is_refused() {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let term = json!([{"topologyKey": "kubernetes.io/hostname"}]);
    for (spec, field) in [
        (json!({"shareProcessNamespace": true}), "shareProcessNamespace"),
        (json!({"runtimeClassName": "gvisor"}), "runtimeClassName"),
        (json!({"overhead": {"cpu": "1"}}), "overhead"),
        (json!({"os": {"name": "windows"}}), "os.name"),
        (json!({"schedulingGates": [{"name": "a"}]}), "schedulingGates"),
        (
            json!({"schedulingGroup": {"podGroupName": "g"}}),
            "schedulingGroup",
        ),
        (json!({"schedulerName": "mine"}), "schedulerName"),
        (json!({"priorityClassName": "high"}), "priorityClassName"),
        (json!({"priority": 2_147_483_647}), "priority"),
        (json!({"priority": -1}), "priority"),
        (
            json!({"readinessGates": [{"conditionType": "a"}]}),
            "readinessGates",
        ),
        (
            json!({"evictionResponders": [{"name": "a"}]}),
            "evictionResponders",
        ),
        (
            json!({"ephemeralContainers": [{"name": "e"}]}),
            "ephemeralContainers",
        ),
        (json!({"resourceClaims": [{"name": "c"}]}), "resourceClaims"),
        (json!({"resources": {"limits": {"memory": "1Gi"}}}), "resources"),
        (
            json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [{}]}}}}),
            &format!("affinity.nodeAffinity.{required}"),
        ),
        (
            json!({"affinity": {"podAffinity": {required: term}}}),
            &format!("affinity.podAffinity.{required}"),
        ),
        (
            json!({"affinity": {"podAntiAffinity": {required: term}}}),
            &format!("affinity.podAntiAffinity.{required}"),
        ),
        (
            json!({"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}]}),
            "topologySpreadConstraints[0].whenUnsatisfiable",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 1}]}),
            "topologySpreadConstraints[0].whenUnsatisfiable",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {"mode": 448}}]}),
            "volumes[0].emptyDir.mode",
        ),
    ] {
        assert_eq!(refused(spec), [format!("spec.{field}")]);
    }
    let profile = json!({"container.apparmor.security.beta.kubernetes.io/c": "localhost/p"});
    let mut errors = Errors::new();
    let template = json!({"metadata": {"annotations": profile}});
    workload(&json!({"spec": {"template": template}}), &mut errors);
    let key = "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]";
    assert_eq!(fields(errors), [key]);
}

#[test]
fn what_protects_or_constrains_a_container_and_is_not_done_is_refused() {
    let mount =
        |field: &str, value: Value| json!({"volumeMounts": [{"name": "v", "mountPath": "/v", field: value}]});
    for (container, field) in [
        (
            json!({"ports": [{"containerPort": 80, "hostPort": 80}]}),
            "ports[0].hostPort",
        ),
        (
            json!({"ports": [{"containerPort": 80, "hostIP": "127.0.0.1"}]}),
            "ports[0].hostIP",
        ),
        (
            json!({"resources": {"claims": [{"name": "c"}]}}),
            "resources.claims",
        ),
        (
            json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}),
            "resizePolicy[0].restartPolicy",
        ),
        (
            json!({"restartPolicyRules": [{"action": "Restart"}]}),
            "restartPolicyRules",
        ),
        (
            json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}),
            "volumeDevices",
        ),
        (
            mount("mountPropagation", json!("HostToContainer")),
            "volumeMounts[0].mountPropagation",
        ),
        (
            mount("recursiveReadOnly", json!("Enabled")),
            "volumeMounts[0].recursiveReadOnly",
        ),
        (
            mount("bindMountOptions", json!(["noexec"])),
            "volumeMounts[0].bindMountOptions",
        ),
        (
            json!({"lifecycle": {"stopSignal": "SIGQUIT"}}),
            "lifecycle.stopSignal",
        ),
        (
            json!({"securityContext": {"capabilities": {"add": ["NET_RAW"], "drop": ["NET_RAW"]}}}),
            "securityContext.capabilities.drop[0]",
        ),
    ] {
        assert_eq!(in_container(container.clone()), [field]);
        assert_eq!(
            refused(json!({"initContainers": [container]})),
            [format!("spec.initContainers[0].{field}")]
        );
    }
}

#[test]
fn a_port_of_the_host_is_one_where_the_network_is_the_hosts() {
    let pod = |port: i64| json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80, "hostPort": port}]}]});
    assert!(refused(pod(80)).is_empty());
    assert!(refused(pod(0)).is_empty());
    assert_eq!(refused(pod(81)), ["spec.containers[0].ports[0].hostPort"]);
}

#[test]
fn what_constrains_a_service_a_rollout_or_a_node_and_is_not_done_is_refused() {
    for (spec, field) in [
        (json!({"sessionAffinity": "ClientIP"}), "sessionAffinity"),
        (
            json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}),
            "sessionAffinityConfig",
        ),
        (json!({"externalIPs": ["192.0.2.1"]}), "externalIPs"),
        (
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
            "loadBalancerSourceRanges",
        ),
        (json!({"externalTrafficPolicy": "Local"}), "externalTrafficPolicy"),
        (json!({"internalTrafficPolicy": "Local"}), "internalTrafficPolicy"),
        (json!({"ipFamilyPolicy": "RequireDualStack"}), "ipFamilyPolicy"),
        (json!({"ipFamilies": ["IPv6"]}), "ipFamilies[0]"),
        (
            json!({"ports": [{"port": 80, "nodePort": 30_080}]}),
            "ports[0].nodePort",
        ),
    ] {
        assert_eq!(of_service(spec), [format!("spec.{field}")]);
    }
    for (spec, field) in [
        (json!({"minReadySeconds": 5}), "minReadySeconds"),
        (
            json!({"template": {"spec": {"restartPolicy": "Never"}}}),
            "template.spec.restartPolicy",
        ),
        (
            json!({"template": {"spec": {"restartPolicy": "Always", "activeDeadlineSeconds": 1}}}),
            "template.spec.activeDeadlineSeconds",
        ),
        (json!({"strategy": {"type": "Recreate"}}), "strategy.type"),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 1}}}),
            "strategy.rollingUpdate.maxSurge",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
            "strategy.rollingUpdate.maxUnavailable",
        ),
    ] {
        let mut errors = Errors::new();
        workload(&json!({"spec": spec}), &mut errors);
        assert_eq!(fields(errors), [format!("spec.{field}")]);
    }
    let taints = json!([{"key": DISK_PRESSURE, "effect": "NoSchedule"}, {"key": "k", "effect": "PreferNoSchedule"},
        {"key": "k", "effect": "NoExecute"}]);
    let mut errors = Errors::new();
    node(&json!({"spec": {"taints": taints}}), &mut errors);
    assert_eq!(fields(errors), ["spec.taints[2]"]);
}

#[test]
fn wishes_and_what_is_so_anyway_are_taken() {
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let container = json!({
        "ports": [{"containerPort": 80, "hostPort": 0, "hostIP": ""}],
        "resources": {"claims": []},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        "volumeMounts": [{"mountPropagation": "None", "recursiveReadOnly": "Disabled"}],
        "livenessProbe": {"httpGet": {"port": 80, "host": "", "httpHeaders": [{"name": "a", "value": "b"}]}},
        "imagePullPolicy": "Always",
        "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
    });
    let spec = json!({"hostUsers": true, "shareProcessNamespace": false, "os": {"name": "linux"},
        "ephemeralContainers": [], "resources": {}, "schedulerName": "default-scheduler",
        "preemptionPolicy": "PreemptLowerPriority", "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {preferred: [{"weight": 1}]}, "nodeAffinity": {preferred: [{"weight": 1}]}},
        "topologySpreadConstraints": [{"whenUnsatisfiable": "ScheduleAnyway"}],
        "volumes": [{"emptyDir": {"mode": 511}}],
        "containers": [container]});
    assert_eq!(refused(spec), [""; 0]);
    let service = json!({"sessionAffinity": "None", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"], "trafficDistribution": "PreferClose",
        "ports": [{"port": 80, "nodePort": 0}]});
    assert_eq!(of_service(service), [""; 0]);
    let mut errors = Errors::new();
    let update = json!({"maxSurge": 1, "maxUnavailable": "25%"});
    workload(
        &json!({"spec": {"minReadySeconds": 0, "strategy": {"rollingUpdate": update}}}),
        &mut errors,
    );
    assert!(errors.is_empty());
}
