//! An agent process with all that it needs, and its remains removed at the end.
#![allow(dead_code)] // each test binary uses a part of it

pub mod orchestrator;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};

use gantry_images::{Digest, ImageStore};
use gantry_nodeagent_api::{Generation, NodeConfig, NodeNetwork, PodConfig};
use serde_json::{Value, json};

use orchestrator::Orchestrator;

/// The binary under test.
pub const AGENT: &str = env!("CARGO_BIN_EXE_gantry-nodeagent");

/// The plugin beside the binary under test; `None`, with a loud word, where pods cannot run.
pub fn cni_or_skip() -> Option<PathBuf> {
    let plugin = Path::new(AGENT).with_file_name("gantry-cni");
    let why = if !nix::unistd::geteuid().is_root() {
        "pods need root"
    } else if !plugin.exists() {
        "gantry-cni is not built (cargo build -p gantry-cni)"
    } else if !Path::new("/bin/busybox").exists() {
        "there is no busybox (apt-get install busybox-static)"
    } else {
        return Some(plugin);
    };
    eprintln!("SKIPPED: {why}");
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|area| matches!(area, "netns" | "cgroup")),
        "{why}"
    );
    None
}

/// One agent with its own directory, instance name and networks.
pub struct Agent {
    pub data: tempfile::TempDir,
    pub instance: String,
    pub third: u8,
    cni: PathBuf,
    process: Option<Child>,
}

impl Agent {
    pub fn new(cni: PathBuf) -> Self {
        Self::on(&std::env::temp_dir(), cni)
    }

    /// With its directory in this one.
    pub fn on(disk: &Path, cni: PathBuf) -> Self {
        let data = tempfile::Builder::new()
            .prefix("gantry-agent-")
            .tempdir_in(disk)
            .unwrap();
        // Tests of one binary run beside each other in one process.
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        import_busybox(data.path());
        let third = u8::try_from((pid * 4 + u32::from(number)) % 250).unwrap();
        Self {
            data,
            instance: format!("{}{:05}", char::from(b'e' + number), pid % 100_000),
            third,
            cni,
            process: None,
        }
    }

    pub fn start(&mut self, orchestrator: &Orchestrator) {
        let dir = &orchestrator.dir;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("agent.log"))
            .unwrap();
        let mut command = Command::new(AGENT);
        command
            .args([
                "agent",
                "--node",
                "node-a",
                "--reserved-cpus",
                "none",
                "--instance",
                &self.instance,
            ])
            .arg("--data-dir")
            .arg(self.data.path())
            .arg("--orchestrator")
            .arg(format!("https://127.0.0.1:{}", orchestrator.port))
            .arg("--cni-bin")
            .arg(&self.cni)
            .stderr(log);
        for file in ["ca", "cert", "key"] {
            command
                .arg(format!("--{file}"))
                .arg(dir.join(format!("{file}.pem")));
        }
        self.process = Some(command.spawn().unwrap());
    }

    /// SIGTERM, or SIGKILL; waits for the end.
    pub fn stop(&mut self, kill: bool) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let signal = if kill {
            nix::sys::signal::SIGKILL
        } else {
            nix::sys::signal::SIGTERM
        };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        process.wait().unwrap();
    }

    pub fn purge(&self) -> std::process::Output {
        let mut command = Command::new(AGENT);
        command
            .args(["purge", "--instance", &self.instance, "--data-dir"])
            .arg(self.data.path());
        command.arg("--cni-bin").arg(&self.cni).output().unwrap()
    }

    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 191, self.third, 1)
    }

    pub fn network(&self) -> NodeNetwork {
        NodeNetwork {
            pod_cidr: format!("10.191.{}.0/24", self.third).parse().unwrap(),
            service_cidr: format!("10.192.{}.0/24", self.third).parse().unwrap(),
            gateway: self.gateway(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    /// The first configuration of its node, with these pods by their uids.
    pub fn config<Uid: Into<String>>(&self, pods: impl IntoIterator<Item = (Uid, PodConfig)>) -> NodeConfig {
        NodeConfig {
            generation: Generation(1),
            network: Some(self.network()),
            shared_cpus: "0".parse().unwrap(),
            pods: pods.into_iter().map(|(uid, pod)| (uid.into(), pod)).collect(),
            ..NodeConfig::default()
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop(true);
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let output = self.purge();
        if !output.status.success() {
            eprintln!("left behind: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// An image `busybox:1` of one file and its links, and `bare:1`, which is the same without a command.
fn import_busybox(data: &Path) {
    let mut tar = tar::Builder::new(Vec::new());
    let header = || {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let mut file = header();
    let busybox = std::fs::read("/bin/busybox").unwrap();
    file.set_mode(0o755);
    file.set_size(busybox.len() as u64);
    tar.append_data(&mut file, "bin/busybox", &busybox[..]).unwrap();
    for tool in ["sh", "httpd", "cat", "echo", "sleep", "nslookup", "wget", "mkdir"] {
        let mut link = header();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_mode(0o777);
        link.set_size(0);
        tar.append_link(&mut link, format!("bin/{tool}"), "busybox")
            .unwrap();
    }
    let layer = tar.into_inner().unwrap();
    let from = data.join("layout");
    std::fs::create_dir_all(from.join("blobs/sha256")).unwrap();
    let blob = |media: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(from.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media, "digest": digest.to_string(), "size": bytes.len()})
    };
    let diff_id = Digest::of(&layer).to_string();
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let image = |name: &str, config: Value| {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
        let mut entry = blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entry
    };
    let shell = json!({"Entrypoint": ["/bin/sh", "-c"], "Env": ["PATH=/bin", "FROM=image"]});
    let images = [image("busybox:1", shell), image("bare:1", json!({}))];
    std::fs::write(from.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": images});
    std::fs::write(from.join("index.json"), index.to_string()).unwrap();
    ImageStore::open(&data.join("images"))
        .unwrap()
        .import_layout(&from, None)
        .unwrap();
}
