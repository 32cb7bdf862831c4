//! The files of each instance: a ConfigMap of its own, which follows what is around it while it runs.

use std::collections::BTreeMap;

use gantry_api::{NetworkFunction, NfPackage, ObjectMeta, labels};
use gantry_catalog::{Context, FunctionContext, InstanceContext, OwnInstance, PeerContext, SubnetContext};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use super::super::world::{Flaw, Key, Work};
use super::super::{meta, pods, quarantine};
use super::rendered::{self, Inputs, Unmade};
use super::revision::Revision;
use super::{Blueprint, around, identity, revision};

/// Instances of peers by the peer's name, and the functions of the service.
struct Around {
    peers: BTreeMap<String, Vec<InstanceContext>>,
    functions: Vec<FunctionContext>,
}

/// Brings the files of all instances up to date.
pub(super) fn run(work: &mut Work<'_>, blueprint: &Blueprint) {
    let has_own = |package: &NfPackage| package.spec.config.iter().any(|file| file.instance);
    let function = &blueprint.function.metadata;
    // An old revision may have some where the current one has none.
    let outdated = |pod: &Pod| meta::label(&pod.metadata, labels::REVISION) != Some(&blueprint.revision);
    let pods = work.pods_of(function);
    if !has_own(&blueprint.package) && !pods.iter().any(|pod| outdated(pod)) {
        return;
    }
    let instances = |peer: &PeerContext| {
        let key = Key::new(meta::namespace(function), &peer.name);
        around::instances(work, &key)
    };
    let peers = blueprint.peers.values();
    let around = Around {
        peers: peers.map(|peer| (peer.name.clone(), instances(peer))).collect(),
        functions: around::service(work, function),
    };
    for pod in pods.iter().filter(|pod| !pods::is_over(pod)) {
        match files(work, blueprint, &around, pod) {
            Ok(Some(files)) => ensure(work, blueprint, pod, files),
            Ok(None) | Err(Unmade::Later) => {}
            Err(Unmade::Problem(problem)) => {
                work.problems.insert(Key::of(function), problem);
            }
            Err(Unmade::Flaw(flaw)) => set_flaw(work, &blueprint.function, flaw),
        }
    }
}

fn set_flaw(work: &mut Work<'_>, function: &NetworkFunction, flaw: Flaw) {
    let key = Key::of(&function.metadata);
    work.problems.insert(key.clone(), flaw.message.clone());
    work.flaws.insert(key, flaw);
}

/// The files of an instance; none if its revision has no such files, or it has no address yet.
fn files(
    work: &mut Work<'_>,
    blueprint: &Blueprint,
    around: &Around,
    pod: &Pod,
) -> Result<Option<BTreeMap<String, String>>, Unmade> {
    let (Some(index), Some(address)) = (identity::index(pod), pods::address(pod)) else {
        return Ok(None);
    };
    let Some(revision) = revision::of_pod(work, blueprint, pod) else {
        return Ok(None);
    };
    let Some(package) = work.get::<NfPackage>(&revision.package_key()) else {
        return Ok(None);
    };
    if !package.spec.config.iter().any(|file| file.instance) {
        return Ok(None);
    }
    let key = Key::of(&blueprint.function.metadata);
    let own = OwnInstance {
        index,
        instance: meta::name(&pod.metadata).to_owned(),
        hostname: format!("{}.{}", meta::name(&pod.metadata), identity::host(work, &key)),
        address: address.to_string(),
        subnet: subnet(&package, &revision, index)?,
    };
    let inputs = Inputs {
        named: (revision.package.clone(), revision.version.clone()),
        context: context(work, blueprint, around, &package, revision, own),
        package,
    };
    let made = rendered::make(work, &key, &inputs)?;
    Ok(Some(made.files.clone()))
}

/// What an instance owns behind it.
fn subnet(package: &NfPackage, revision: &Revision, index: u32) -> Result<Option<SubnetContext>, Unmade> {
    let owned = package.spec.interfaces.iter().find_map(|i| i.subnet.as_ref());
    let net = owned
        .map(|subnet| subnet.of(&revision.values, index))
        .transpose()?;
    Ok(net.map(SubnetContext::from))
}

fn context(
    work: &Work<'_>,
    blueprint: &Blueprint,
    around: &Around,
    package: &NfPackage,
    revision: Revision,
    own: OwnInstance,
) -> Context {
    let mut peers = revision.peers;
    for peer in peers.values_mut() {
        // An old revision may have been wired to others.
        let other = || {
            let key = Key::new(&blueprint.own.namespace, &peer.name);
            around::instances(work, &key)
        };
        peer.instances = Some(around.peers.get(&peer.name).cloned().unwrap_or_else(other));
    }
    let mut of_function = blueprint.own.clone();
    of_function.instance = Some(own);
    Context {
        values: revision.values,
        peers,
        own: of_function,
        functions: package.spec.sees_service.then(|| around.functions.clone()),
    }
}

/// Name of the ConfigMap of an instance.
pub(super) fn config_map_name(pod: &str) -> String {
    format!("{pod}-files")
}

fn ensure(work: &mut Work<'_>, blueprint: &Blueprint, pod: &Pod, files: BTreeMap<String, String>) {
    let name = config_map_name(meta::name(&pod.metadata));
    let key = Key::new(meta::namespace(&pod.metadata), &name);
    match work.get::<ConfigMap>(&key) {
        None => {
            let kept = [labels::NF, labels::SERVICE, labels::REVISION];
            let own = pod.metadata.labels.iter().flatten();
            let own = own.filter(|(name, _)| kept.contains(&name.as_str()));
            let metadata = ObjectMeta {
                name: Some(name),
                namespace: pod.metadata.namespace.clone(),
                labels: Some(own.map(|(k, v)| (k.clone(), v.clone())).collect()),
                owner_references: Some(vec![meta::owner("v1", "Pod", &pod.metadata)]),
                ..Default::default()
            };
            work.create(ConfigMap {
                metadata,
                data: Some(files),
                ..Default::default()
            });
        }
        Some(map) if meta::controls(&pod.metadata, &map.metadata) => {
            // Without an object that cannot be read lists would be short of somebody who goes on: they stay as they are.
            let known = !quarantine::is_around(work, &key.namespace);
            if known
                && map.data.as_ref() != Some(&files)
                && let Some(map) = work.edit::<ConfigMap>(&key)
            {
                map.data = Some(files);
            }
        }
        // Of the instance before: a later pass takes it away.
        Some(map)
            if meta::label(&map.metadata, labels::NF) == Some(meta::name(&blueprint.function.metadata)) => {}
        Some(_) => {
            let problem = format!(
                "a ConfigMap `{}` exists and is not part of this function: delete it or choose another name",
                key.name
            );
            work.problems
                .insert(Key::of(&blueprint.function.metadata), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::labels;
    use gantry_nodeagent_api::Hook;
    use serde_json::json;

    use super::super::super::lab::Lab;
    use super::*;

    const LIST: &str = "{{ self.instance }}/{{ self.index }} {{ values.level }}:{% for i in peers.media.instances %} \
                        {{ i.host }} {{ i.ready }}-{{ i.draining }}{% endfor %}\n";

    /// A headless function, and one that has its instances in a file of its own.
    fn core() -> Lab {
        let mut lab = Lab::new(&["n"]);
        lab.publish("media", "1.0.0", json!({"headless": true}));
        let needs = json!([{"function": "media", "role": "media", "interface": "sip"}]);
        let own = json!({
            "needs": needs,
            "values": {"level": 1},
            "config": [{"template": "list", "path": "/etc/cscf/own/list", "instance": true},
                {"template": "main.cfg", "path": "/etc/cscf/main.cfg"}],
            "templates": {"list": LIST, "main.cfg": "to {{ peers.media.host }}\n"},
            "reload": [{"container": "main", "signal": "SIGHUP"}],
        });
        lab.publish("cscf", "1.0.0", own.clone());
        lab.publish("cscf", "2.0.0", own);
        lab.deploy("media", json!({}));
        lab.deploy("cscf", json!({"replicas": 2, "peers": {"media": "media"}}));
        lab.settle();
        lab.run_for(2_000);
        lab
    }

    fn list(lab: &Lab, pod: &str) -> String {
        let key = Key::new("default", &config_map_name(pod));
        let map = &lab.world.objects.config_maps[&key];
        map.data.as_ref().unwrap()["etc-cscf-own-list"].clone()
    }

    /// What the node is told of a pod.
    fn told(lab: &Lab, pod: &str) -> gantry_nodeagent_api::PodConfig {
        let config = &lab.world.configs["n"];
        let pods = config.pods.values();
        pods.clone()
            .find(|p| p.name == pod)
            .expect("the node has it")
            .clone()
    }

    const FIRST: &str = "media-0.media.default.svc.cluster.local True-False";

    #[test]
    fn an_instance_knows_itself_and_learns_of_its_peers_without_a_new_revision() {
        let mut lab = core();
        assert_eq!(list(&lab, "cscf-0"), format!("cscf-0/0 1: {FIRST}\n"));
        assert_eq!(list(&lab, "cscf-1"), format!("cscf-1/1 1: {FIRST}\n"));
        let before = lab.pods("cscf");
        lab.change("media", |spec| spec.replicas = 2);
        lab.settle();
        lab.run_for(2_000);
        let second = "media-1.media.default.svc.cluster.local True-False";
        assert_eq!(list(&lab, "cscf-0"), format!("cscf-0/0 1: {FIRST} {second}\n"));
        assert_eq!(lab.pods("cscf"), before, "the same pods");
        let pod = told(&lab, "cscf-1");
        let files = pod.volumes["instance-0"].files().unwrap();
        let text = String::from_utf8(files["list"].data.clone()).unwrap();
        assert_eq!(text, format!("cscf-1/1 1: {FIRST} {second}\n"));
        let main = &pod.containers[0];
        assert_eq!(main.reload, Some(Hook::Signal { signal: 1 }));
        let whole = main.mounts.iter().find(|m| m.volume == "instance-0").unwrap();
        assert_eq!(
            (whole.path.as_str(), whole.sub_path.as_deref()),
            ("/etc/cscf/own", None)
        );
    }

    #[test]
    fn one_that_drains_is_said_to_and_one_of_an_old_revision_learns_of_it() {
        let mut lab = core();
        let old = lab.pods("cscf");
        for uid in old.values() {
            lab.sessions.insert(uid.clone(), 1);
        }
        lab.change("cscf", |spec| {
            spec.version = "2.0.0".to_owned();
            spec.values.insert("level".to_owned(), json!(2));
        });
        lab.settle();
        lab.run_for(10_000);
        assert_eq!(lab.pods("cscf").len(), 4, "the old ones have sessions");
        lab.change("media", |spec| spec.replicas = 2);
        lab.settle();
        lab.run_for(2_000);
        for uid in lab.pods("media").values() {
            lab.sessions.insert(uid.clone(), 1);
        }
        lab.change("media", |spec| spec.replicas = 1);
        lab.settle();
        lab.run_for(1_000);
        let going = "media-1.media.default.svc.cluster.local True-True";
        assert_eq!(list(&lab, "cscf-0"), format!("cscf-0/0 1: {FIRST} {going}\n"));
        assert_eq!(list(&lab, "cscf-2"), format!("cscf-2/2 2: {FIRST} {going}\n"));
        let names = &lab.world.configs["n"].dns;
        assert!(names.contains_key("media-1.media.default.svc.cluster.local"));
        let of_choice = &names["media.default.svc.cluster.local"];
        assert_eq!(of_choice.len(), 1, "it takes nothing new");
    }

    #[test]
    fn files_go_with_their_instance_and_its_number_is_given_again() {
        let mut lab = core();
        lab.change("cscf", |spec| spec.replicas = 1);
        lab.settle();
        lab.run_for(20_000);
        assert_eq!(lab.pods("cscf").len(), 1);
        let maps = &lab.world.objects.config_maps;
        let own = maps.keys().filter(|key| key.name.ends_with("-files"));
        assert_eq!(own.count(), 1);
        let left = lab.pods("cscf").into_keys().next().unwrap();
        lab.change("cscf", |spec| spec.replicas = 2);
        lab.settle();
        lab.run_for(2_000);
        let names: Vec<String> = lab.pods("cscf").into_keys().collect();
        assert_eq!(names, ["cscf-0", "cscf-1"], "{left} stayed");
    }

    #[test]
    fn a_function_waits_for_its_peers_first_instance_and_goes_before_it() {
        let mut lab = Lab::new(&["n"]);
        lab.publish("db", "1.0.0", json!({}));
        let needs = json!([{"function": "db", "role": "db", "interface": "sip", "wait": true}]);
        lab.publish("hss", "1.0.0", json!({"needs": needs}));
        lab.deploy("hss", json!({"peers": {"db": "db"}}));
        lab.deploy("db", json!({}));
        lab.settle();
        let at_node = |lab: &Lab| -> Vec<String> {
            let pods = lab.world.configs["n"].pods.values();
            pods.map(|pod| pod.name.clone()).collect()
        };
        assert_eq!(at_node(&lab), ["db-0"]);
        let waiting = lab.world.objects.pods[&Key::new("default", "hss-0")].clone();
        let why = &pods::find(&waiting, "PodReadyToStartContainers").unwrap().message;
        assert_eq!(why.as_deref(), Some("it starts once an instance of db is ready"));
        lab.run_for(2_000);
        assert_eq!(at_node(&lab).len(), 2);
        for name in ["db", "hss"] {
            let key = Key::new("default", name);
            let function = lab.world.objects.functions.get_mut(&key).unwrap();
            let function = std::sync::Arc::make_mut(function);
            function.metadata.deletion_timestamp = Some(meta::time(lab.now_ms));
        }
        lab.settle();
        let is_stopping = |lab: &Lab, name: &str| {
            let pod = &lab.world.objects.pods[&Key::new("default", name)];
            pods::is_stopping(pod)
        };
        assert!(is_stopping(&lab, "hss-0") && !is_stopping(&lab, "db-0"));
        lab.run_for(10_000);
        assert!(lab.world.objects.pods.is_empty() && lab.world.objects.functions.is_empty());
        assert!(lab.world.objects.services.is_empty());
    }

    #[test]
    fn what_an_instance_owns_is_its_part_of_the_pool() {
        let mut lab = Lab::new(&["n"]);
        let interface = json!({"name": "sip", "protocol": "SIP", "transport": "tcp", "port": 5060, "service": true,
            "subnet": {"pool": "uePool", "prefix": 24}});
        let spec = json!({
            "interfaces": [interface], "values": {"uePool": "10.45.0.0/22"},
            "config": [{"template": "pool", "path": "/etc/own/pool", "instance": true}],
            "templates": {"pool": "{{ self.address }} {{ self.subnet.cidr }} {{ self.subnet.gateway }}"},
        });
        lab.publish("pgw", "1.0.0", spec);
        lab.deploy("pgw", json!({"replicas": 2}));
        lab.settle();
        let text = |pod: &str| {
            let map = &lab.world.objects.config_maps[&Key::new("default", &config_map_name(pod))];
            map.data.as_ref().unwrap()["etc-own-pool"].clone()
        };
        let address = |pod: &str| {
            let pod = &lab.world.objects.pods[&Key::new("default", pod)];
            pods::address(pod).unwrap()
        };
        assert_eq!(
            text("pgw-0"),
            format!("{} 10.45.0.0/24 10.45.0.1", address("pgw-0"))
        );
        assert_eq!(
            text("pgw-1"),
            format!("{} 10.45.1.0/24 10.45.1.1", address("pgw-1"))
        );
        let function = lab.function("pgw");
        assert_eq!(function.status.conditions.len(), 0);
        let pod = &lab.world.objects.pods[&Key::new("default", "pgw-0")];
        assert_eq!(meta::label(&pod.metadata, labels::INDEX), Some("0"));
    }
}
