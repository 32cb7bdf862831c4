//! What a start makes inside the root file system: mount points through the image's links, and the working directory.

mod runtime_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use gantry_nodeagent::runtime::{BindMount, root};
use runtime_support::{exit_on_record, logged, node};

#[test]
fn links_of_the_image_and_a_new_working_directory() {
    let Some(node) = node() else { return };
    let pod = node.pod("r");
    let image = pod.path().join("rootfs");
    fs::create_dir_all(image.join("var")).unwrap();
    fs::create_dir_all(image.join("run")).unwrap();
    // As distributions have them: relative, absolute, and to what is not there before a boot.
    symlink("../run", image.join("var/run")).unwrap();
    symlink("/run/lock", image.join("var/lock")).unwrap();
    symlink(
        "../run/systemd/resolve/stub-resolv.conf",
        image.join("etc/resolv.conf"),
    )
    .unwrap();
    symlink("../../../../../../../outside", image.join("out")).unwrap();
    let host = node.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("resolv"), "nameserver 1.2.3.4\n").unwrap();
    fs::write(host.join("file"), "data\n").unwrap();
    let bind = |source: PathBuf, target: &str| BindMount {
        source,
        target: target.into(),
        read_only: false,
    };
    let script = "pwd; cat /etc/resolv.conf /run/app/file /run/lock/file /outside/file /run/app/deep/file; ls -d /run/systemd";
    let mut start = node.sh(&pod, "r", "web", script);
    start.mounts = vec![
        bind(host.join("resolv"), "/etc/resolv.conf"),
        bind(host.clone(), "/var/run/app"),
        bind(host.clone(), "/var/lock"),
        bind(host.clone(), "/out"),
        bind(host.clone(), "/var/run/app/deep"),
    ];
    start.cwd = "/srv/made/here".to_owned();
    start.image_volumes = ["/data/x", "/var/lock", "/proc/y"].map(str::to_owned).to_vec();
    root::prepare(&start).unwrap();
    root::prepare(&start).unwrap();
    assert!(image.join("data/x").is_dir() && !image.join("proc/y").exists());
    node.shim(&pod).start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    let said = logged(&start);
    let wanted = "/srv/made/here\nnameserver 1.2.3.4\ndata\ndata\ndata\ndata\n/run/systemd\n";
    assert_eq!(said, wanted);
    assert!(!node.dir.path().join("outside").exists());
}

#[test]
fn a_working_directory_in_a_volume() {
    let Some(node) = node() else { return };
    let pod = node.pod("w");
    let host = node.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let mut start = node.sh(&pod, "w", "web", "pwd");
    start.mounts = vec![BindMount {
        source: host.clone(),
        target: "/data".into(),
        read_only: false,
    }];
    start.cwd = "/data/a/b".to_owned();
    root::prepare(&start).unwrap();
    node.shim(&pod).start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    assert_eq!(logged(&start), "/data/a/b\n");
    assert!(host.join("a/b").is_dir());

    start.mounts.clear();
    start.cwd = "/etc/passwd/x".to_owned();
    fs::write(pod.path().join("rootfs/etc/passwd"), "").unwrap();
    let refused = root::prepare(&start).unwrap_err().to_string();
    assert!(
        refused.contains("the working directory /etc/passwd/x of container web"),
        "{refused}"
    );
}

#[test]
fn no_link_leads_a_mount_over_what_is_hidden() {
    let Some(node) = node() else { return };
    let pod = node.pod("h");
    let (volume, other) = (node.dir.path().join("volume"), node.dir.path().join("other"));
    fs::create_dir(&volume).unwrap();
    // As another container of the pod leaves it.
    symlink("/", volume.join("root")).unwrap();
    // A look there must not be answered by the volume itself.
    fs::create_dir_all(other.join("self")).unwrap();
    fs::write(other.join("self/mountinfo"), "").unwrap();
    let bind = |source: &PathBuf, target: &str| BindMount {
        source: source.clone(),
        target: target.into(),
        read_only: false,
    };
    for (name, target) in [
        ("all", "/v/root/proc"),
        ("some", "/v/root/proc/sys/net"),
        ("sys", "/v/root/sys/fs"),
    ] {
        let mut start = node.sh(&pod, "h", name, "echo runs");
        start.mounts = vec![bind(&volume, "/v"), bind(&other, target)];
        root::prepare(&start).unwrap();
        node.shim(&pod).start_container(&start).unwrap();
        let exit = exit_on_record(&pod, name).exit.unwrap();
        assert!(
            exit.message.contains("a mount covers /"),
            "{target}: {}",
            exit.message
        );
        assert_eq!(logged(&start), "");
    }
    let file = other.join("self/mountinfo");
    for (name, target, why) in [
        ("slash", "/", "would cover the container's /"),
        ("dev", "/dev", "would cover the container's /dev"),
        ("file", "/etc/hosts", "is a file already"),
    ] {
        let mut start = node.sh(&pod, "h", name, "echo runs");
        start.mounts = vec![bind(&file, "/etc/hosts"), bind(&other, target)];
        root::prepare(&start).unwrap();
        let refused = node.shim(&pod).start_container(&start).unwrap_err().to_string();
        assert!(refused.contains(why), "{target}: {refused}");
    }
}

/// What only the kernel knows is told with the path and its reason.
#[test]
fn a_mount_that_fails_is_named() {
    let Some(node) = node() else { return };
    let pod = node.pod("m");
    let file = node.dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (name, source, target, why) in [
        ("over", &file, "/etc", "EINVAL"),
        ("below", &file, "/bin/busybox/x", "Not a directory"),
    ] {
        let mut start = node.sh(&pod, "m", name, "echo runs");
        start.mounts = vec![BindMount {
            source: source.clone(),
            target: target.into(),
            read_only: false,
        }];
        let refused = node.shim(&pod).start_container(&start).unwrap_err().to_string();
        assert!(refused.contains(target) && refused.contains(why), "{refused}");
        assert!(refused.len() < 2000, "{refused}");
        assert_eq!(logged(&start), "");
    }
}
