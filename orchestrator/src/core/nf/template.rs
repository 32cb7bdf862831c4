//! The Pod of a function, as Kubernetes spells it.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{ExclusiveCpus, NetworkFunctionSpec, PodExtras, labels};
use gantry_catalog::{Cpu, NfContainer, NfPackageSpec, NfProbe, NfSecurity};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::{meta, pods, resources};
use super::{Blueprint, child_meta, claims, config_map_name, identity, own_files};

const CONFIG_VOLUME: &str = "config";

/// The pod of an instance, of the blueprint's revision and size.
pub(super) fn pod(blueprint: &Blueprint, index: u32) -> k8s::Pod {
    let function = &blueprint.function;
    let package = &blueprint.package.spec;
    let name = identity::name(&function.metadata, index);
    let mut volumes = Vec::new();
    if package.config.iter().any(|file| !file.instance) {
        let config_map = k8s::ConfigMapVolumeSource {
            name: config_map_name(&function.metadata, &blueprint.revision),
            ..Default::default()
        };
        volumes.push(k8s::Volume {
            name: CONFIG_VOLUME.to_owned(),
            config_map: Some(config_map),
            ..Default::default()
        });
    }
    volumes.extend(own_files::volumes(package, &name));
    volumes.extend(claims::volumes(package, &name));
    let secrets: BTreeSet<&str> = package
        .secrets_with(&function.spec.peers)
        .map(|s| s.secret.as_str())
        .collect();
    volumes.extend(secrets.into_iter().map(secret_volume));
    let mut made = |containers: &[NfContainer]| -> Vec<k8s::Container> {
        let made = containers.iter();
        made.map(|c| container(blueprint, c, &mut volumes)).collect()
    };
    let (init_containers, containers) = (made(&package.init_containers), made(&package.containers));
    let mut metadata = child_meta(&function.metadata, name.clone(), Some(&blueprint.revision));
    let own_labels = metadata.labels.get_or_insert_default();
    own_labels.insert(labels::INDEX.to_owned(), index.to_string());
    meta::annotate(
        &mut metadata,
        labels::EXTRAS,
        Some(extras(blueprint, Some(index))),
    );
    meta::annotate(&mut metadata, pods::SIZED_BY, Some(size_of(&function.spec)));
    let dns = blueprint.dns();
    let spec = k8s::PodSpec {
        init_containers: (!init_containers.is_empty()).then_some(init_containers),
        containers,
        volumes: (!volumes.is_empty()).then_some(volumes),
        restart_policy: Some("Always".to_owned()),
        hostname: Some(name),
        subdomain: Some(meta::name(&function.metadata).to_owned()),
        dns_policy: dns.is_some().then(|| "None".to_owned()),
        dns_config: dns,
        security_context: pod_security(package),
        ..Default::default()
    };
    k8s::Pod {
        metadata,
        spec: Some(spec),
        ..Default::default()
    }
}

/// Fingerprint of the size that a function asks for.
pub(super) fn size_of(spec: &NetworkFunctionSpec) -> String {
    let size = serde_json::to_string(&spec.resources).expect("plain data has a JSON form");
    meta::hash(&[&size])[..10].to_owned()
}

/// Kernel parameters, and the group that volumes belong to.
fn pod_security(package: &NfPackageSpec) -> Option<k8s::PodSecurityContext> {
    let sysctl = |(name, value): (&String, &String)| k8s::Sysctl {
        name: name.clone(),
        value: value.clone(),
    };
    let sysctls: Vec<_> = package.sysctls.iter().map(sysctl).collect();
    let mut groups = package.containers.iter().filter_map(|c| c.security.group);
    let group = groups.next().map(i64::from);
    let context = k8s::PodSecurityContext {
        sysctls: (!sysctls.is_empty()).then_some(sysctls),
        fs_group: group.filter(|_| !package.volumes.is_empty()),
        ..Default::default()
    };
    (context != k8s::PodSecurityContext::default()).then_some(context)
}

/// What the PodSpec cannot say, as the annotation's text.
pub(super) fn extras(blueprint: &Blueprint, index: Option<u32>) -> String {
    let spec = &blueprint.function.spec;
    let package = &blueprint.package.spec;
    let exclusive = package
        .containers
        .iter()
        .filter_map(|c| match resources::cpu_of(c, spec) {
            Cpu::Exclusive { count, smt } => Some((
                c.name.clone(),
                ExclusiveCpus {
                    count: *count,
                    smt: *smt,
                },
            )),
            Cpu::Shared { .. } => None,
        });
    let extras = PodExtras {
        exclusive: exclusive.collect(),
        open_files: package
            .containers
            .iter()
            .filter_map(|c| Some((c.name.clone(), u64::from(c.open_files?))))
            .collect(),
        reload: package.reload.iter().filter_map(own_files::reload).collect(),
        waits_for: waits_for(package, spec),
        subnets: subnets(blueprint, index),
        group: spec.group.clone(),
        drain: package.drain.clone(),
    };
    serde_json::to_string(&extras).expect("plain data has a JSON form")
}

/// What an instance owns behind it.
fn subnets(blueprint: &Blueprint, index: Option<u32>) -> Vec<String> {
    let interfaces = blueprint.package.spec.interfaces.iter();
    let owned = interfaces.filter_map(|i| i.subnet.as_ref()).zip(index);
    // A pool that has no room is refused with the function.
    owned
        .filter_map(|(subnet, index)| subnet.of(&blueprint.values, index).ok())
        .map(|net| net.to_string())
        .collect()
}

/// Functions of which one instance has to be ready first.
pub(super) fn waits_for(package: &NfPackageSpec, spec: &NetworkFunctionSpec) -> Vec<String> {
    let needs = package.needs.iter().filter(|need| need.wait);
    needs
        .filter_map(|need| spec.peers.get(&need.function).cloned())
        .collect()
}

fn container(blueprint: &Blueprint, from: &NfContainer, volumes: &mut Vec<k8s::Volume>) -> k8s::Container {
    let shared = blueprint.package.spec.config.iter().filter(|file| !file.instance);
    let config = shared.map(|file| k8s::VolumeMount {
        name: CONFIG_VOLUME.to_owned(),
        mount_path: file.path.clone(),
        sub_path: Some(file.key()),
        read_only: Some(true),
        ..Default::default()
    });
    let secrets = blueprint
        .package
        .spec
        .secrets_with(&blueprint.function.spec.peers);
    let secrets = secrets.map(|file| k8s::VolumeMount {
        name: secret_volume(&file.secret).name,
        mount_path: file.path.clone(),
        sub_path: Some(file.key.clone()),
        read_only: Some(true),
        ..Default::default()
    });
    let own = own_files::mounts(&blueprint.package.spec);
    let kept = claims::mounts(&blueprint.package.spec);
    let mut mounts: Vec<_> = config.chain(own).chain(secrets).chain(kept).collect();
    for (index, path) in from.scratch.iter().enumerate() {
        let name = format!("{}-scratch-{index}", from.name);
        let empty_dir = k8s::EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            ..Default::default()
        };
        volumes.push(k8s::Volume {
            name: name.clone(),
            empty_dir: Some(empty_dir),
            ..Default::default()
        });
        mounts.push(k8s::VolumeMount {
            name,
            mount_path: path.clone(),
            ..Default::default()
        });
    }
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    k8s::Container {
        name: from.name.clone(),
        image: Some(from.image.clone()),
        command: some(&from.command),
        args: some(&from.args),
        env: Some(environment(from)),
        resources: Some(resources::requirements(from, &blueprint.function.spec)),
        startup_probe: from.startup_probe.as_ref().map(probe),
        readiness_probe: from.readiness_probe.as_ref().map(probe),
        liveness_probe: from.liveness_probe.as_ref().map(probe),
        security_context: Some(security(&from.security)),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ports: ports(blueprint),
        // Why a program ended is told where people look, not in its log alone.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Default::default()
    }
}

fn secret_volume(secret: &str) -> k8s::Volume {
    k8s::Volume {
        name: format!("secret-{secret}"),
        secret: Some(k8s::SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ports(blueprint: &Blueprint) -> Option<Vec<k8s::ContainerPort>> {
    let interfaces = &blueprint.package.spec.interfaces;
    let port = |i: &gantry_catalog::Interface| k8s::ContainerPort {
        name: Some(i.name.clone()),
        container_port: i32::from(i.port),
        protocol: Some(format!("{:?}", i.transport).to_uppercase()),
        ..Default::default()
    };
    let ports: Vec<_> = interfaces.iter().filter(|i| i.port != 0).map(port).collect();
    (!ports.is_empty()).then_some(ports)
}

/// The pod's own address and names first, so that the container's variables can refer to them.
fn environment(from: &NfContainer) -> Vec<k8s::EnvVar> {
    let field = |name: &str, path: &str| k8s::EnvVar {
        name: name.to_owned(),
        value_from: Some(k8s::EnvVarSource {
            field_ref: Some(k8s::ObjectFieldSelector {
                field_path: path.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let own = [
        field("POD_IP", "status.podIP"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
    ];
    let given = from.env.iter().map(|e| k8s::EnvVar {
        name: e.name.clone(),
        value: Some(e.value.clone()),
        ..Default::default()
    });
    own.into_iter().chain(given).collect()
}

fn probe(from: &NfProbe) -> k8s::Probe {
    let port = |port: u16| IntOrString::Int(i32::from(port));
    let number = |n: u32| Some(i32::try_from(n).unwrap_or(i32::MAX));
    k8s::Probe {
        http_get: from.http_get.as_ref().map(|h| k8s::HTTPGetAction {
            path: Some(h.path.clone()),
            port: port(h.port),
            ..Default::default()
        }),
        tcp_socket: from.tcp_socket.as_ref().map(|t| k8s::TCPSocketAction {
            port: port(t.port),
            ..Default::default()
        }),
        exec: from.exec.as_ref().map(|e| k8s::ExecAction {
            command: Some(e.command.clone()),
        }),
        initial_delay_seconds: number(from.initial_delay_seconds),
        period_seconds: number(from.period_seconds),
        timeout_seconds: number(from.timeout_seconds),
        failure_threshold: number(from.failure_threshold),
        ..Default::default()
    }
}

/// The level `restricted` of Kubernetes' Pod Security Standards, but for what the package says that it needs.
fn security(from: &NfSecurity) -> k8s::SecurityContext {
    let capabilities = k8s::Capabilities {
        add: (!from.capabilities.is_empty()).then(|| from.capabilities.clone()),
        drop: Some(vec!["ALL".to_owned()]),
    };
    k8s::SecurityContext {
        run_as_user: from.user.map(i64::from),
        run_as_group: from.group.map(i64::from),
        run_as_non_root: from.user.filter(|user| *user != 0).map(|_| true),
        capabilities: Some(capabilities),
        allow_privilege_escalation: Some(false),
        seccomp_profile: Some(k8s::SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..Default::default()
        }),
        read_only_root_filesystem: Some(from.read_only_root_filesystem),
        ..Default::default()
    }
}

/// Requests and limits by container name.
pub(super) fn sizes(pod: &k8s::Pod) -> BTreeMap<String, Option<k8s::ResourceRequirements>> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers
        .map(|c| (c.name.clone(), c.resources.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use gantry_catalog::PodSecurityLevel;
    use serde_json::json;

    use super::*;
    use crate::core::lab::Lab;
    use crate::podsecurity;

    #[test]
    fn a_secret_that_a_package_names_is_a_file_of_its_pods() {
        let mut lab = Lab::new(&["n1"]);
        let files = json!([
            {"secret": "keys", "key": "a", "path": "/etc/a"},
            {"secret": "keys", "key": "b", "path": "/etc/b"}
        ]);
        lab.publish("hss", "1.0.0", json!({"secrets": files}));
        lab.deploy("hss", json!({}));
        lab.settle();
        let pod = lab.world.objects.pods.values().next().expect("a pod");
        let spec = pod.spec.as_ref().unwrap();
        let secrets = spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| v.secret.as_ref()?.secret_name.as_deref());
        assert_eq!(secrets.collect::<Vec<_>>(), ["keys"], "once, however many files");
        let mounts = spec.containers[0].volume_mounts.iter().flatten();
        let files = mounts.filter(|m| m.name == "secret-keys");
        let files: Vec<_> = files
            .map(|m| (m.sub_path.as_deref(), m.mount_path.as_str()))
            .collect();
        assert_eq!(files, [(Some("a"), "/etc/a"), (Some("b"), "/etc/b")]);
    }

    #[test]
    fn a_secret_for_a_peer_is_there_where_that_is_wired() {
        let secret_volumes = |peers| {
            let mut lab = Lab::new(&["n1"]);
            let needs = json!([{"function": "db", "role": "db", "interface": "sip", "optional": true}]);
            let files = json!([{"secret": "password", "key": "a", "path": "/etc/a", "peer": "db"}]);
            lab.publish("db", "1.0.0", json!({}));
            lab.publish("cscf", "1.0.0", json!({"needs": needs, "secrets": files}));
            lab.deploy("db", json!({}));
            lab.deploy("cscf", json!({"peers": peers}));
            lab.settle();
            let pods = lab.world.objects.pods.values();
            let volumes = pods.flat_map(|pod| pod.spec.as_ref()?.volumes.as_ref());
            volumes.flatten().filter(|v| v.secret.is_some()).count()
        };
        assert_eq!(secret_volumes(json!({})), 0);
        assert_eq!(secret_volumes(json!({"db": "db"})), 1);
    }

    /// Each package of the catalog, as it is on the disk.
    fn catalog() -> Vec<NfPackageSpec> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../nf-catalog/packages");
        let mut files = Vec::new();
        for package in std::fs::read_dir(root)
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_dir())
        {
            for file in std::fs::read_dir(package.path()).unwrap().flatten() {
                let directory = package.file_name().into_string().unwrap();
                let name = file.file_name().into_string().unwrap();
                let text = std::fs::read_to_string(file.path()).unwrap();
                files.push((format!("packages/{directory}/{name}"), text));
            }
        }
        let texts = files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        let catalog = gantry_catalog::Catalog::from_files(texts, |job| job.run(|_| ())).unwrap();
        catalog.packages.into_values().collect()
    }

    fn level(package: &NfPackageSpec) -> &'static str {
        match package.pod_security {
            PodSecurityLevel::Restricted => "restricted",
            PodSecurityLevel::Baseline => "baseline",
            PodSecurityLevel::Privileged => "privileged",
        }
    }

    #[test]
    fn every_package_gets_along_with_the_level_that_it_states() {
        let mut beyond = Vec::new();
        for spec in catalog() {
            let level = level(&spec);
            let context = spec.example_contexts("f", &BTreeMap::new()).remove(0);
            let mut function = gantry_api::NetworkFunction::default();
            function.metadata.name = Some("f".to_owned());
            let package = gantry_api::NfPackage::new(Default::default(), spec);
            let blueprint = Blueprint {
                function: function.into(),
                package: package.into(),
                revision: "r".to_owned(),
                files: BTreeMap::new(),
                values: context.values,
                peers: context.peers,
                own: context.own,
            };
            let pod = serde_json::to_value(pod(&blueprint, 0)).unwrap();
            let labels = json!({"pod-security.kubernetes.io/enforce": level});
            let judged = podsecurity::judge("Pod", &pod, &labels);
            let name = &blueprint.package.spec.package;
            assert_eq!(judged.refusal, None, "{name} states {level}");
            beyond.extend((level != "restricted").then(|| name.clone()));
        }
        assert_eq!(beyond, ["ggsn", "pgw"], "who asks for more");
    }
}
