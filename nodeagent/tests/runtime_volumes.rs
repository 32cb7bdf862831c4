//! What a pod brings along: volumes, network files, its network namespace; and logs under load.

mod runtime_support;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use gantry_nodeagent::runtime::names::{NetworkFiles, write_network_files};
use gantry_nodeagent::runtime::volumes::{container_mounts, prepare, unmount};
use gantry_nodeagent::runtime::{ClaimsDir, RuntimeDir};
use gantry_nodeagent_api::{
    ContainerConfig, ContainerResources, HostPathType, Mount, PodConfig, Volume, VolumeFile,
};
use runtime_support::{exit_on_record, logged, node, until};

/// Nobody here has any.
fn no_claims() -> ClaimsDir {
    ClaimsDir::new(Path::new("/not/there"))
}

fn mount(volume: &str, path: &str, sub_path: Option<&str>) -> Mount {
    Mount {
        volume: volume.to_owned(),
        path: path.to_owned(),
        sub_path: sub_path.map(str::to_owned),
        read_only: false,
    }
}

#[test]
fn volumes_are_where_the_pod_wants_them() {
    let Some(node) = node() else { return };
    let pod = node.pod("v");
    fs::create_dir(node.dir.path().join("host")).unwrap();
    let host = node.dir.path().join("host").to_str().unwrap().to_owned();
    let files = BTreeMap::from([
        ("a.cfg".to_owned(), "aaa\n".into()),
        ("b.cfg".to_owned(), "bbb\n".into()),
    ]);
    let mut config = PodConfig {
        volumes: BTreeMap::from([
            ("files".to_owned(), Volume::Files(files)),
            ("scratch".to_owned(), Volume::Scratch { size_bytes: 1 << 20 }),
            (
                "host".to_owned(),
                Volume::HostPath {
                    path: host,
                    kind: HostPathType::Directory,
                },
            ),
        ]),
        ..PodConfig::default()
    };
    let container = ContainerConfig {
        mounts: vec![
            mount("files", "/etc/all", None),
            mount("files", "/etc/one.cfg", Some("b.cfg")),
            mount("scratch", "/scratch", None),
            mount("host", "/host", None),
        ],
        ..ContainerConfig::default()
    };
    prepare(&pod, &no_claims(), &config, None).unwrap();
    prepare(&pod, &no_claims(), &config, None).unwrap();
    let network = NetworkFiles {
        hostname: "a-pod".to_owned(),
        address: Some("10.9.8.7".parse().unwrap()),
        nameservers: vec!["10.9.8.1".parse().unwrap()],
        search: vec!["ns.svc.cluster.local".to_owned()],
        ..NetworkFiles::default()
    };
    write_network_files(&pod, &network).unwrap();
    let script = "cat /etc/all/a.cfg /etc/one.cfg /etc/hosts /etc/resolv.conf /etc/hostname; \
                  echo no > /etc/all/a.cfg; echo no > /etc/hosts || echo hosts are kept; echo yes > /host/from-inside; grep ' /host ' /proc/mounts; \
                  dd if=/dev/zero of=/scratch/big bs=1M count=3; exit 0";
    let mut start = node.sh(&pod, "v", "web", script);
    start.mounts = container_mounts(&pod, &no_claims(), &config, &container).unwrap();
    // Only who may overcome modes could write to the files, were they not mounted read-only.
    start.security.capabilities = vec!["DAC_OVERRIDE".to_owned()];
    node.shim(&pod).start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    let said = logged(&start);
    for wanted in [
        "aaa\nbbb\n",
        "10.9.8.7\ta-pod",
        "hosts are kept",
        "nameserver 10.9.8.1\nsearch ns.svc.cluster.local",
        "Read-only",
        "No space left",
        ",nodev,",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(
        fs::read_to_string(node.dir.path().join("host/from-inside")).unwrap(),
        "yes\n"
    );
    unmount(&pod).unwrap();
    unmount(&pod).unwrap();

    config.volumes.insert(
        "host".to_owned(),
        Volume::HostPath {
            path: "/not/there".to_owned(),
            kind: HostPathType::default(),
        },
    );
    assert!(
        prepare(&pod, &no_claims(), &config, None)
            .unwrap_err()
            .to_string()
            .contains("/not/there")
    );
    let evil = Volume::Files(BTreeMap::from([("../x".to_owned(), "".into())]));
    config.volumes = BTreeMap::from([("files".to_owned(), evil)]);
    assert!(
        prepare(&pod, &no_claims(), &config, None)
            .unwrap_err()
            .to_string()
            .contains("../x")
    );
    assert!(container_mounts(&pod, &no_claims(), &PodConfig::default(), &container).is_err());
}

/// What a container has put into a volume must not lead the next start anywhere else on the host.
#[test]
fn a_part_of_a_volume_is_inside_it() {
    let Some(node) = node() else { return };
    let pod = node.pod("p");
    fs::create_dir(node.dir.path().join("outside")).unwrap();
    fs::write(node.dir.path().join("outside/secret"), "secret").unwrap();
    let config = PodConfig {
        volumes: BTreeMap::from([("scratch".to_owned(), Volume::Scratch { size_bytes: 1 << 20 })]),
        ..PodConfig::default()
    };
    let part = |sub_path: &str| ContainerConfig {
        name: "web".to_owned(),
        mounts: vec![mount("scratch", "/part", Some(sub_path))],
        ..ContainerConfig::default()
    };
    prepare(&pod, &no_claims(), &config, None).unwrap();
    let scratch = pod.path().join("volumes/scratch");
    fs::create_dir_all(scratch.join("a/b")).unwrap();
    fs::write(scratch.join("a/b/text"), "inside").unwrap();
    fs::write(scratch.join("file"), "inside").unwrap();
    let outside = node.dir.path().join("outside");
    std::os::unix::fs::symlink(&outside, scratch.join("out")).unwrap();
    std::os::unix::fs::symlink("../../../outside", scratch.join("a/up")).unwrap();
    std::os::unix::fs::symlink("a/b", scratch.join("in")).unwrap();
    for leads_out in ["out", "out/secret", "out/new", "a/up", "a/up/new"] {
        let refused = container_mounts(&pod, &no_claims(), &config, &part(leads_out)).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("leads out of the volume"), "{leads_out}: {said}");
    }
    for (sub_path, text) in [("a/b", "text"), ("in", "text"), ("file", ""), ("a/b", "text")] {
        let mounts = container_mounts(&pod, &no_claims(), &config, &part(sub_path)).unwrap();
        let found = mounts.last().unwrap().source.join(text);
        assert_eq!(
            fs::read_to_string(found.to_str().unwrap().trim_end_matches('/')).unwrap(),
            "inside"
        );
        // Held: what is put in its place later is not what the container gets.
        assert!(
            mounts
                .last()
                .unwrap()
                .source
                .starts_with(pod.path().join("subpaths"))
        );
    }
    assert!(!outside.join("new").exists());
    // What is not there yet is made, for everybody as the volume itself.
    let mounts = container_mounts(&pod, &no_claims(), &config, &part("new/deep")).unwrap();
    assert!(mounts.last().unwrap().source.is_dir());
    for made in ["new", "new/deep"] {
        let mode = fs::metadata(scratch.join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777, "{made}");
    }
    unmount(&pod).unwrap();
    assert!(!pod.path().join("subpaths/web/0/text").exists());
}

/// A process that holds a network namespace.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_container_joins_the_pods_network_namespace() {
    let Some(node) = node() else { return };
    let pod = node.pod("n");
    let holder = Holder(
        Command::new("unshare")
            .args(["--net", "sleep", "1000"])
            .spawn()
            .unwrap(),
    );
    let path = format!("/proc/{}/ns/net", holder.0.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let other = until("another namespace", || {
        fs::read_link(&path).ok().filter(|link| *link != own)
    });
    let mut start = node.sh(
        &pod,
        "n",
        "web",
        "ls -l /proc/self/ns/net; ls /sys/class/net; sleep 1000",
    );
    start.netns = Some(path.into());
    node.shim(&pod).start_container(&start).unwrap();
    let said = until("output", || {
        Some(logged(&start)).filter(|text| text.ends_with("lo\n"))
    });
    assert!(said.contains(other.to_str().unwrap()), "{said}");
    let inside = node.exec(&pod, "web", "ls -l /proc/self/ns/net");
    assert!(
        String::from_utf8_lossy(&inside.stdout).contains(other.to_str().unwrap()),
        "{inside:?}"
    );
}

#[test]
fn a_flood_of_output_is_kept_within_bounds_and_its_end_is_there() {
    let Some(node) = node() else { return };
    let pod = node.pod("l");
    let mut start = node.sh(
        &pod,
        "l",
        "web",
        "yes 0123456789 | head -n 200000; echo the end; printf no-newline",
    );
    start.argv[2] = start.argv[2].replace("printf", "echo -n");
    start.log_max_bytes = 1 << 20;
    node.shim(&pod).start_container(&start).unwrap();
    exit_on_record(&pod, "web");
    assert!(logged(&start).ends_with("0123456789\nthe end\nno-newline\n"));
    let size = |path: &std::path::Path| fs::metadata(path).unwrap().len();
    let old = start.log_path.with_extension("log.1");
    assert!(size(&start.log_path) <= 1 << 20 && size(&old) <= 1 << 20 && size(&old) > 900 << 10);
}

/// The kernel names mounts without links and `..`; what is mounted must never be emptied with the pod's directory.
#[test]
fn mounts_are_found_by_any_name_of_the_directory() {
    let Some(node) = node() else { return };
    let host = node.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("precious"), "").unwrap();
    std::os::unix::fs::symlink(node.dir.path(), node.dir.path().join("link")).unwrap();
    for (uid, agent_dir) in [("d", "host/.."), ("l", "link")] {
        let pod = RuntimeDir::new(&node.dir.path().join(agent_dir))
            .create_pod(uid)
            .unwrap();
        let inside = pod.path().join("inside");
        fs::create_dir(&inside).unwrap();
        bind(&host, &inside);
        let held = pod.remove().unwrap_err();
        assert!(
            held.source().unwrap().to_string().contains("still mounted"),
            "{held}"
        );
        unmount(&pod).unwrap();
        pod.remove().unwrap();
        assert!(!pod.path().exists() && host.join("precious").exists());
    }
}

fn bind(source: &Path, target: &Path) {
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(source), target, None::<&str>, flags, None::<&str>).unwrap();
}

/// A ConfigMap and a Secret change under a running container: the volume follows, a part of it is what it was.
#[test]
fn new_files_reach_a_running_container() {
    let Some(node) = node() else { return };
    let pod = node.pod("f");
    let with = |text: &str| {
        let files: BTreeMap<String, VolumeFile> = [("x/a".to_owned(), text.into())].into();
        PodConfig {
            volumes: BTreeMap::from([
                ("map".to_owned(), Volume::Files(files.clone())),
                ("secret".to_owned(), Volume::SecretFiles(files)),
            ]),
            ..PodConfig::default()
        }
    };
    let container = ContainerConfig {
        mounts: vec![
            mount("map", "/map", None),
            mount("map", "/one", Some("x/a")),
            mount("secret", "/secret", None),
        ],
        ..ContainerConfig::default()
    };
    prepare(&pod, &no_claims(), &with("old"), None).unwrap();
    write_network_files(&pod, &NetworkFiles::default()).unwrap();
    let script = "grep -q ' /secret tmpfs ro' /proc/mounts && echo in memory; echo begun; \
                  until grep -q new /map/x/a && grep -q new /secret/x/a; do sleep 0.05; done; cat /map/x/a /secret/x/a /one; exit 0";
    let mut start = node.sh(&pod, "f", "web", script);
    start.mounts = container_mounts(&pod, &no_claims(), &with("old"), &container).unwrap();
    node.shim(&pod).start_container(&start).unwrap();
    until("it has begun", || logged(&start).contains("begun").then_some(()));
    prepare(&pod, &no_claims(), &with("new"), None).unwrap();
    exit_on_record(&pod, "web");
    let said = logged(&start);
    assert!(said.contains("newnewold") && said.contains("in memory"), "{said}");
}

#[test]
fn a_scratch_volume_always_has_a_limit() {
    let Some(node) = node() else { return };
    let pod = node.pod("z");
    let config = PodConfig {
        volumes: BTreeMap::from([("scratch".to_owned(), Volume::Scratch { size_bytes: 0 })]),
        ..PodConfig::default()
    };
    prepare(&pod, &no_claims(), &config, None).unwrap();
    let stat = nix::sys::statvfs::statvfs(&pod.path().join("volumes/scratch")).unwrap();
    assert!(stat.blocks() > 0, "0 is no limit");
    unmount(&pod).unwrap();
    // No larger than what the pod may have at all.
    let limited = |size_bytes, memory_bytes| PodConfig {
        volumes: BTreeMap::from([("scratch".to_owned(), Volume::Scratch { size_bytes })]),
        containers: vec![ContainerConfig {
            resources: ContainerResources {
                memory_bytes,
                ..ContainerResources::default()
            },
            ..ContainerConfig::default()
        }],
        ..PodConfig::default()
    };
    for (size, memory, expected) in [
        (0, 8 << 20, 8 << 20),
        (16 << 20, 8 << 20, 8 << 20),
        (4 << 20, 8 << 20, 4 << 20),
    ] {
        prepare(&pod, &no_claims(), &limited(size, memory), None).unwrap();
        let stat = nix::sys::statvfs::statvfs(&pod.path().join("volumes/scratch")).unwrap();
        assert_eq!(stat.blocks() * stat.fragment_size(), expected);
        unmount(&pod).unwrap();
    }
}
