//! The files of an instance in its pod: each directory of them is a volume that is mounted as a whole, so that it may be replaced.

use std::collections::BTreeSet;

use gantry_api::ReloadHook;
use gantry_catalog::{ConfigFile, NfPackageSpec, Reload, ReloadSignal};
use k8s_openapi::api::core::v1 as k8s;

use super::instances::config_map_name;

/// Directories of instances' files, in order.
fn directories(package: &NfPackageSpec) -> BTreeSet<&str> {
    own(package).map(ConfigFile::directory).collect()
}

fn own(package: &NfPackageSpec) -> impl Iterator<Item = &ConfigFile> {
    package.config.iter().filter(|file| file.instance)
}

fn volume_name(number: usize) -> String {
    format!("instance-{number}")
}

/// A volume for each directory, of the instance's ConfigMap.
pub(super) fn volumes(package: &NfPackageSpec, pod: &str) -> Vec<k8s::Volume> {
    let items = |directory: &str| {
        let files = own(package).filter(|file| file.directory() == directory);
        let item = |file: &ConfigFile| k8s::KeyToPath {
            key: file.key(),
            path: file.name().to_owned(),
            ..Default::default()
        };
        files.map(item).collect()
    };
    let directories = directories(package).into_iter().enumerate();
    directories
        .map(|(number, directory)| k8s::Volume {
            name: volume_name(number),
            config_map: Some(k8s::ConfigMapVolumeSource {
                name: config_map_name(pod),
                items: Some(items(directory)),
                ..Default::default()
            }),
            ..Default::default()
        })
        .collect()
}

/// Where containers see them.
pub(super) fn mounts(package: &NfPackageSpec) -> impl Iterator<Item = k8s::VolumeMount> {
    let directories = directories(package).into_iter().enumerate();
    directories.map(|(number, directory)| k8s::VolumeMount {
        name: volume_name(number),
        mount_path: directory.to_owned(),
        read_only: Some(true),
        ..Default::default()
    })
}

/// What a container does when they were replaced.
pub(super) fn reload(reload: &Reload) -> Option<(String, ReloadHook)> {
    let hook = match (&reload.exec, reload.signal) {
        (Some(exec), _) => ReloadHook::Exec(exec.command.clone()),
        (None, Some(signal)) => ReloadHook::Signal(number(signal)),
        (None, None) => return None,
    };
    Some((reload.container.clone(), hook))
}

/// As in signal(7), on x86.
fn number(signal: ReloadSignal) -> u32 {
    match signal {
        ReloadSignal::Hup => 1,
        ReloadSignal::Usr1 => 10,
        ReloadSignal::Usr2 => 12,
    }
}
