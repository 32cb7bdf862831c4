//! The volumes of instances: a claim for each, named by the instance as Kubernetes names those of StatefulSets. They outlive pods, and
//! go with the function.

use gantry_catalog::{NfPackageSpec, NfVolume, Quantity};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::super::meta;
use super::super::world::{Key, Work};
use super::{Blueprint, child_meta};

/// A claim for each volume of each instance that there is.
pub(super) fn run(work: &mut Work<'_>, blueprint: &Blueprint) {
    let function = &blueprint.function.metadata;
    for pod in work.pods_of(function) {
        for volume in &blueprint.package.spec.volumes {
            let name = claim_name(volume, meta::name(&pod.metadata));
            let key = Key::new(meta::namespace(function), &name);
            if !work.objects.claims.contains_key(&key) {
                work.create(claim(blueprint, name, volume.size));
            }
        }
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
