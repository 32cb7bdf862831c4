//! A node in a network namespace of its own, driven through the real plugin binary, as a runtime does it.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod devices;
pub mod icmp;
pub mod netns;
pub mod outside;
pub mod peers;
pub mod raw;
pub mod services;

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use gantry_ebpf::Datapath;
use serde_json::{Value, json};

use netns::Netns;

pub const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Packets are on their way for a moment, on a busy machine for longer.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells loudly why a test does nothing; fails instead if REQUIRE names the area.
pub fn can_run(area: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if Command::new("nft").arg("--version").output().is_err() {
        "no nft binary"
    } else {
        return true;
    };
    eprintln!("SKIPPED: {missing}");
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r == area),
        "REQUIRE={area}, but {missing}"
    );
    false
}

/// A host with its own namespace, data directory and instance name.
pub struct Node {
    pub ns: Netns,
    pub instance: String,
    config: Value,
    dir: tempfile::TempDir,
}

impl Node {
    pub fn new(instance: &str) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "cniVersion": "1.1.0", "name": "gantry", "type": "gantry-cni",
            "dataDir": dir.path().join("cni"), "bpfDir": dir.path().join("bpf"), "instance": instance,
            "podCidr": "10.85.0.0/24", "serviceCidr": "10.86.0.0/16", "gateway": "10.85.0.1",
        });
        let ns = Netns::new(&dir.path().join("host"));
        Node {
            ns,
            instance: instance.to_owned(),
            config,
            dir,
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn bpf_dir(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("cni")
    }

    pub fn datapath(&self) -> Datapath {
        Datapath::ensure(&self.bpf_dir()).unwrap()
    }

    /// The configuration with some fields replaced.
    pub fn config(&self, changes: Value) -> Value {
        let mut config = self.config.clone();
        for (field, value) in changes.as_object().cloned().unwrap_or_default() {
            config[field] = value;
        }
        config
    }

    pub fn run(&self, args: &[&str], env: &[(&str, &str)], config: &Value) -> Output {
        let env: Vec<(String, String)> = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        self.ns.run(|| {
            let mut child = Command::new(env!("CARGO_BIN_EXE_gantry-cni"))
                .args(args)
                .env_clear()
                .env("PATH", std::env::var("PATH").unwrap_or_default())
                .envs(env)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(config.to_string().as_bytes())
                .unwrap();
            child.wait_with_output().unwrap()
        })
    }

    pub fn command(&self, command: &str, pod: &Pod, changes: Value) -> Output {
        self.command_with(command, pod, changes, &[])
    }

    pub fn command_with(&self, command: &str, pod: &Pod, changes: Value, more: &[(&str, &str)]) -> Output {
        let netns = pod.ns.path().to_str().unwrap().to_owned();
        let mut env = vec![
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_NETNS", netns.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/nowhere"),
        ];
        env.extend(more);
        self.run(&[], &env, &self.config(changes))
    }

    /// A namespace without an interface.
    pub fn bare_pod(&self, id: &str) -> Pod {
        Pod {
            id: id.to_owned(),
            ns: Netns::new(&self.dir.path().join(id)),
            ip: Ipv4Addr::UNSPECIFIED,
        }
    }

    /// A pod with its interface.
    pub fn pod(&self, id: &str) -> Pod {
        self.pod_with(id, json!({}))
    }

    /// One for which the runtime asks for something.
    pub fn pod_with(&self, id: &str, runtime_config: Value) -> Pod {
        let mut pod = self.bare_pod(id);
        let result = success(self.command("ADD", &pod, json!({ "runtimeConfig": runtime_config })));
        let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
        pod.ip = address.strip_suffix("/32").unwrap().parse().unwrap();
        pod
    }

    /// Names of the host's links but `lo`.
    pub fn links(&self) -> Vec<String> {
        let text = self
            .ns
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
        text.lines().filter_map(name).filter(|n| n != "lo").collect()
    }

    pub fn purge(&self) -> Output {
        self.run(&["purge"], &[], &self.config)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Before the directory goes: the pins must be unmounted. A test that purged already loses nothing.
        let _ = Datapath::unload(&self.bpf_dir());
    }
}

/// A network namespace that plays a pod.
pub struct Pod {
    pub id: String,
    pub ns: Netns,
    pub ip: Ipv4Addr,
}

/// The result of a command that must succeed.
pub fn success(output: Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stdout} {stderr}", output.status);
    if stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&stdout).unwrap()
    }
}

/// The CNI error of a command that must fail.
pub fn failure(output: Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}
