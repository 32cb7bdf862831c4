//! The volumes of instances: a claim for each, named by the instance as Kubernetes names those of StatefulSets. They outlive pods, and
//! go with the function.

use gantry_catalog::{NfPackageSpec, NfVolume, Quantity};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::super::world::{Key, Work};
use super::super::{meta, resources};
use super::{Blueprint, child_meta};

/// A claim for each volume of each instance that there is.
pub(super) fn run(work: &mut Work<'_>, blueprint: &Blueprint) {
    let function = &blueprint.function.metadata;
    for pod in work.pods_of(function) {
        for volume in &blueprint.package.spec.volumes {
            let name = claim_name(volume, meta::name(&pod.metadata));
            let key = Key::new(meta::namespace(function), &name);
            match work.get::<PersistentVolumeClaim>(&key) {
                None => drop(work.create(claim(blueprint, name, volume.size))),
                Some(known) if meta::controls(function, &known.metadata) => grow(work, &key, volume.size),
                Some(_) => {
                    let problem = format!(
                        "a PersistentVolumeClaim `{name}` exists and is not part of this function: delete it or choose another name"
                    );
                    work.problems.insert(Key::of(function), problem);
                }
            }
        }
    }
}

/// A claim never shrinks.
fn grow(work: &mut Work<'_>, key: &Key, size: Quantity) {
    let asked = |claim: &PersistentVolumeClaim| {
        let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        resources::parse_bytes(&requests.get("storage")?.0)
    };
    let smaller = |claim: &PersistentVolumeClaim| asked(claim).is_some_and(|bytes| bytes < size.0);
    if !work
        .get::<PersistentVolumeClaim>(key)
        .is_some_and(|claim| smaller(&claim))
    {
        return;
    }
    let claim = work.edit::<PersistentVolumeClaim>(key);
    let wanted = claim
        .and_then(|claim| claim.spec.as_mut())
        .and_then(|spec| spec.resources.as_mut());
    if let Some(resources) = wanted {
        let requests = resources.requests.get_or_insert_default();
        requests.insert("storage".to_owned(), Amount(size.to_string()));
    }
}

fn claim(blueprint: &Blueprint, name: String, size: Quantity) -> PersistentVolumeClaim {
    let requests = [("storage".to_owned(), Amount(size.to_string()))];
    PersistentVolumeClaim {
        metadata: child_meta(&blueprint.function.metadata, name, None),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOncePod".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests.into()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn claim_name(volume: &NfVolume, pod: &str) -> String {
    format!("{}-{pod}", volume.name)
}

fn volume_name(volume: &NfVolume) -> String {
    format!("volume-{}", volume.name)
}

/// The volumes of an instance's pod.
pub(super) fn volumes(package: &NfPackageSpec, pod: &str) -> impl Iterator<Item = k8s::Volume> {
    package.volumes.iter().map(move |volume| k8s::Volume {
        name: volume_name(volume),
        persistent_volume_claim: Some(k8s::PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(volume, pod),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// Where containers see them.
pub(super) fn mounts(package: &NfPackageSpec) -> impl Iterator<Item = k8s::VolumeMount> {
    package.volumes.iter().map(|volume| k8s::VolumeMount {
        name: volume_name(volume),
        mount_path: volume.path.clone(),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::lab::Lab;
    use super::*;

    #[test]
    fn an_instance_has_its_volume_whatever_pod_it_is_and_it_goes_with_the_function() {
        let mut lab = Lab::new(&["n"]);
        let volumes = json!([{"name": "state", "path": "/var/lib/hss", "size": "64Mi"}]);
        for version in ["1.0.0", "2.0.0"] {
            let replace = json!({"volumes": volumes, "upgrade": {"strategy": "replace"}});
            lab.publish("hss", version, replace);
        }
        lab.deploy("hss", json!({}));
        lab.settle();
        lab.run_for(2_000);
        let key = Key::new("default", "state-hss-0");
        let claim = |lab: &Lab| lab.world.objects.claims.get(&key).map(|c| c.metadata.uid.clone());
        let first = claim(&lab).expect("a claim");
        let before = lab.pods("hss");
        lab.change("hss", |spec| spec.version = "2.0.0".to_owned());
        lab.settle();
        lab.run_for(20_000);
        assert_ne!(lab.pods("hss"), before);
        assert_eq!(lab.pods("hss").into_keys().collect::<Vec<_>>(), ["hss-0"]);
        assert_eq!(claim(&lab), Some(first), "the same volume");
        let pod = lab.world.objects.pods[&Key::new("default", "hss-0")].clone();
        let spec = pod.spec.as_ref().unwrap();
        let named = spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| v.persistent_volume_claim.as_ref());
        assert_eq!(
            named.map(|c| c.claim_name.as_str()).collect::<Vec<_>>(),
            ["state-hss-0"]
        );

        let function = lab
            .world
            .objects
            .functions
            .get_mut(&Key::new("default", "hss"))
            .unwrap();
        let function = std::sync::Arc::make_mut(function);
        function.metadata.deletion_timestamp = Some(meta::time(lab.now_ms));
        lab.settle();
        lab.run_for(20_000);
        assert_eq!(claim(&lab), None);
    }
}
