//! What a pod's security asks of the node: done, or the start is refused with the reason.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use gantry_images::open_beneath;
use gantry_nodeagent_api::{ContainerConfig, PodConfig, Seccomp};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Failure;
use crate::runtime::ids::IDS;
use crate::runtime::{ContainerUser, SeccompProfile};

/// Largest profile in bytes: it goes to the shim in one line of at most 1 MiB.
const MAX_PROFILE_BYTES: u64 = 256 << 10;

/// Refuses a user that the pod does not want, in the words of Kubernetes.
pub(super) fn check_user(
    uid: &str,
    pod: &PodConfig,
    container: &ContainerConfig,
    user: &ContainerUser,
) -> Result<(), Failure> {
    if !container.security.run_as_non_root || user.uid != 0 {
        return Ok(());
    }
    let whose = match container.security.user {
        Some(_) => "container's runAsUser breaks non-root policy",
        None => "container has runAsNonRoot and image will run as root",
    };
    Err(Failure::Config(format!(
        "{whose} (pod: \"{}_{}({uid})\", container: {})",
        pod.name, pod.namespace, container.name
    )))
}

/// The groups of a container's processes besides the primary one.
pub(super) fn add_groups(pod: &PodConfig, user: &mut ContainerUser) {
    if pod.security.strict_groups {
        user.additional_gids.clear();
    }
    user.additional_gids.extend(&pod.security.supplemental_groups);
    user.additional_gids.extend(pod.security.fs_group);
    user.additional_gids.sort_unstable();
    user.additional_gids.dedup();
}

/// Refuses a user or group that a pod with ids of its own does not have.
pub(super) fn check_own_ids(
    pod: &PodConfig,
    container: &ContainerConfig,
    user: &ContainerUser,
) -> Result<(), Failure> {
    let mut all = [user.uid, user.gid]
        .into_iter()
        .chain(user.additional_gids.iter().copied());
    match all.find(|id| *id >= IDS) {
        Some(id) if pod.security.own_ids => Err(Failure::Config(format!(
            "container {}: user or group {id} does not exist in a pod with `hostUsers: false`: its ids are 0 to {}",
            container.name,
            IDS - 1
        ))),
        _ => Ok(()),
    }
}

/// The profile of system calls; one of the node is read from `seccomp` in the agent's directory.
pub(super) fn seccomp(agent_dir: &Path, container: &ContainerConfig) -> Result<SeccompProfile, Failure> {
    let path = match &container.security.seccomp {
        Seccomp::RuntimeDefault => return Ok(SeccompProfile::RuntimeDefault),
        Seccomp::Unconfined => return Ok(SeccompProfile::Unconfined),
        Seccomp::Localhost(path) => path,
    };
    let profiles = agent_dir.join("seccomp");
    read_beneath(&profiles, path)
        .map(SeccompProfile::Json)
        .map_err(|e| {
            Failure::Config(format!(
                "container {}: cannot load seccomp profile {}: {e}",
                container.name,
                profiles.join(path).display()
            ))
        })
}

fn read_beneath(dir: &Path, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let dir = openat(CWD, dir, flags | OFlags::DIRECTORY, Mode::empty())?;
    let file = File::from(open_beneath(&dir, Path::new(path), flags)?);
    let found = file.metadata()?;
    if !found.is_file() || found.len() > MAX_PROFILE_BYTES {
        return Err(io::Error::other(format!(
            "it must be a file of at most {MAX_PROFILE_BYTES} bytes"
        )));
    }
    let mut text = String::new();
    file.take(MAX_PROFILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Refuses an AppArmor profile where the kernel has no AppArmor, or has not loaded it.
pub(super) fn check_apparmor(container: &ContainerConfig) -> Result<(), Failure> {
    let Some(profile) = &container.security.apparmor_profile else {
        return Ok(());
    };
    let refused = |why: &str| {
        Err(Failure::Config(format!(
            "AppArmor profile `{profile}` cannot be put in force: {why}"
        )))
    };
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with('Y')) {
        return refused("the kernel of this node has no AppArmor");
    }
    if profile == "unconfined" {
        return Ok(());
    }
    // Lines of `NAME (MODE)`.
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let is_loaded = loaded
        .lines()
        .any(|l| l.rsplit_once(" (").is_some_and(|(name, _)| name == profile));
    if is_loaded {
        Ok(())
    } else {
        refused("it is not loaded on this node")
    }
}

/// Whether a container may have `/dev/net/tun`.
pub(super) fn may_tunnel(container: &ContainerConfig) -> bool {
    let security = &container.security;
    let mut all = security.capabilities.iter().chain(&security.root_capabilities);
    all.any(|name| ["NET_ADMIN", "ALL"].contains(&name.trim_start_matches("CAP_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(edit: impl FnOnce(&mut ContainerConfig)) -> ContainerConfig {
        let mut container = ContainerConfig {
            name: "c".to_owned(),
            ..ContainerConfig::default()
        };
        edit(&mut container);
        container
    }

    #[test]
    fn root_is_refused_in_kubernetes_words() {
        let pod = PodConfig {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            ..PodConfig::default()
        };
        let strict = container(|c| c.security.run_as_non_root = true);
        let root = ContainerUser::default();
        let said = check_user("u", &pod, &strict, &root).unwrap_err().to_string();
        let expected =
            "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)";
        assert_eq!(said, expected);
        let zero = container(|c| {
            c.security.run_as_non_root = true;
            c.security.user = Some(0);
        });
        assert!(
            check_user("u", &pod, &zero, &root)
                .unwrap_err()
                .to_string()
                .contains("breaks non-root policy")
        );
        let other = ContainerUser {
            uid: 7,
            ..ContainerUser::default()
        };
        check_user("u", &pod, &strict, &other).unwrap();
        check_user("u", &pod, &container(|_| {}), &root).unwrap();
    }

    #[test]
    fn groups_are_added_and_strictness_leaves_the_images_out() {
        let mut pod = PodConfig::default();
        pod.security.supplemental_groups = vec![9, 4];
        pod.security.fs_group = Some(4);
        let image = ContainerUser {
            additional_gids: vec![7],
            ..ContainerUser::default()
        };
        let groups = |pod: &PodConfig| {
            let mut user = image.clone();
            add_groups(pod, &mut user);
            user.additional_gids
        };
        assert_eq!(groups(&pod), [4, 7, 9]);
        pod.security.strict_groups = true;
        assert_eq!(groups(&pod), [4, 9]);
    }

    #[test]
    fn ids_beyond_a_pods_own_are_refused() {
        let mut pod = PodConfig::default();
        let user = ContainerUser {
            uid: 1,
            gid: 2,
            additional_gids: vec![65_536],
        };
        let any = container(|_| {});
        check_own_ids(&pod, &any, &user).unwrap();
        pod.security.own_ids = true;
        let said = check_own_ids(&pod, &any, &user).unwrap_err().to_string();
        assert!(said.contains("group 65536"), "{said}");
        check_own_ids(
            &pod,
            &any,
            &ContainerUser {
                additional_gids: vec![65_535],
                ..user
            },
        )
        .unwrap();
    }

    #[test]
    fn profiles_of_the_node_stay_in_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("seccomp/sub")).unwrap();
        fs::write(dir.path().join("seccomp/sub/p.json"), "{}").unwrap();
        fs::write(dir.path().join("outside"), "{}").unwrap();
        std::os::unix::fs::symlink("../outside", dir.path().join("seccomp/link")).unwrap();
        let read = |path: &str| {
            let asks = container(|c| c.security.seccomp = Seccomp::Localhost(path.to_owned()));
            seccomp(dir.path(), &asks)
        };
        assert_eq!(read("sub/p.json").unwrap(), SeccompProfile::Json("{}".to_owned()));
        for path in ["../outside", "link", "/etc/passwd", "sub", "none"] {
            let said = read(path).unwrap_err().to_string();
            assert!(said.contains("cannot load seccomp profile"), "{said}");
        }
    }
}
