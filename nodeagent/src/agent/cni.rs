//! Calls the CNI plugin as any container runtime would (CNI specification 1.1.0).

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gantry_nodeagent_api::NodeNetwork;
use serde::Deserialize;
use serde_json::{Value, json};

/// The interface in the pod.
pub const IFNAME: &str = "eth0";
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer in bytes.
const ANSWER_LIMIT: u64 = 1 << 20;
const MTU: u32 = 1500;

/// The plugin and what it is always told.
#[derive(Clone, Debug)]
pub struct Cni {
    /// The program.
    pub program: PathBuf,
    /// The agent's directory.
    pub agent_dir: PathBuf,
    /// Short name of this Gantry on the node.
    pub instance: String,
    /// How long one call may take.
    pub timeout: Duration,
}

/// What a pod is to get.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its address.
    pub address: Ipv4Addr,
    /// Pods of one group have one share of what all use together.
    pub group: &'a str,
    /// Pods of one realm reach the subnets behind each other.
    pub realm: &'a str,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The program could not be run.
    #[error("cannot run the CNI plugin {}", program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("CNI {command} for {container} did not end within {seconds} s")]
    Timeout {
        /// Which.
        command: String,
        /// For whom.
        container: String,
        /// The limit.
        seconds: u64,
    },
    /// It said no.
    #[error("CNI {command} for {container} failed: {message}")]
    Failed {
        /// Which.
        command: String,
        /// For whom.
        container: String,
        /// In its own words.
        message: String,
        /// Its error code (specification, "Error"); 0 if it gave none.
        code: u32,
    },
    /// It said something else than the specification lets it.
    #[error("CNI {command} for {container} gave an answer that is none")]
    Answer {
        /// Which.
        command: String,
        /// For whom.
        container: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// What ADD returns, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AddResult {
    ips: Vec<ResultIp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct ResultIp {
    address: ipnet::IpNet,
}

impl AddResult {
    /// The first IPv4 address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.ips.iter().find_map(|ip| match ip.address {
            ipnet::IpNet::V4(net) => Some(net.addr()),
            ipnet::IpNet::V6(_) => None,
        })
    }
}

impl Cni {
    /// With the usual patience.
    pub fn new(program: &Path, agent_dir: &Path, instance: &str) -> Self {
        let (program, agent_dir) = (program.to_owned(), agent_dir.to_owned());
        Self {
            program,
            agent_dir,
            instance: instance.to_owned(),
            timeout: TIMEOUT,
        }
    }

    /// Where the datapath is pinned.
    pub fn bpf_dir(&self) -> PathBuf {
        self.agent_dir.join("bpf")
    }

    /// Gives a pod its interface and address.
    pub fn add(
        &self,
        network: &NodeNetwork,
        uid: &str,
        netns: &Path,
        asked: &Asked<'_>,
    ) -> Result<AddResult, CniError> {
        let mut config = self.config(network);
        config["runtimeConfig"] = json!({
            "ips": [format!("{}/32", asked.address)], "shareGroup": asked.group, "realm": asked.realm,
        });
        let answer = self.call("ADD", uid, Some(netns), &config)?;
        let bad = |source| CniError::Answer {
            command: "ADD".to_owned(),
            container: uid.to_owned(),
            source,
        };
        serde_json::from_slice(&answer).map_err(bad)
    }

    /// Takes a pod's interface away. Fine if it has none.
    pub fn del(&self, network: &NodeNetwork, uid: &str, netns: &Path) -> Result<(), CniError> {
        self.call(
            "DEL",
            uid,
            Some(netns).filter(|path| path.exists()),
            &self.config(network),
        )
        .map(drop)
    }

    /// Makes the host's side, before there is any pod.
    pub fn host(&self, network: &NodeNetwork) -> Result<(), CniError> {
        self.run(
            "host",
            "the node",
            Command::new(&self.program).arg("host"),
            &self.config(network),
        )
        .map(drop)
    }

    /// Removes all that the plugin ever made for this instance.
    pub fn purge(&self, network: &NodeNetwork) -> Result<(), CniError> {
        self.run(
            "purge",
            "the node",
            Command::new(&self.program).arg("purge"),
            &self.config(network),
        )
        .map(drop)
    }

    fn config(&self, network: &NodeNetwork) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "gantry",
            "type": "gantry-cni",
            "dataDir": self.agent_dir.join("cni"),
            "bpfDir": self.bpf_dir(),
            "instance": self.instance,
            "podCidr": network.pod_cidr,
            "serviceCidr": network.service_cidr,
            "gateway": network.gateway,
            "mtu": MTU,
            "capabilities": { "ips": true, "shareGroup": true, "realm": true },
        })
    }

    fn call(
        &self,
        command: &str,
        uid: &str,
        netns: Option<&Path>,
        config: &Value,
    ) -> Result<Vec<u8>, CniError> {
        let mut program = Command::new(&self.program);
        program
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", uid)
            .env("CNI_IFNAME", IFNAME)
            .env("CNI_NETNS", netns.unwrap_or(Path::new("")))
            .env("CNI_PATH", self.program.parent().unwrap_or(Path::new("/")));
        self.run(command, uid, &mut program, config)
    }

    fn run(
        &self,
        command: &str,
        uid: &str,
        program: &mut Command,
        config: &Value,
    ) -> Result<Vec<u8>, CniError> {
        let failed = |source| CniError::Run {
            program: self.program.clone(),
            source,
        };
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take().expect("asked for");
        // A plugin may end without reading: what it says counts.
        let _ = stdin.write_all(config.to_string().as_bytes());
        drop(stdin);
        let (stdout, stderr) = (
            child.stdout.take().expect("asked for"),
            child.stderr.take().expect("asked for"),
        );
        let answer = std::thread::spawn(move || drain(stdout));
        let complaint = std::thread::spawn(move || drain(stderr));
        let deadline = Instant::now() + self.timeout;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if Instant::now() > deadline {
                // Both fail only if it has just ended.
                let _ = child.kill();
                let _ = child.wait();
                let (command, container) = (command.to_owned(), uid.to_owned());
                return Err(CniError::Timeout {
                    command,
                    container,
                    seconds: self.timeout.as_secs(),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let answer = answer.join().unwrap_or_default();
        if status.success() {
            return Ok(answer);
        }
        let complaint = complaint.join().unwrap_or_default();
        Err(failure(command, uid, &answer, &complaint))
    }
}

fn drain(from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before an error is all there is.
    let _ = from.take(ANSWER_LIMIT).read_to_end(&mut bytes);
    bytes
}

/// Error answer of the specification: code, msg, details; a crashed plugin leaves only its standard error.
fn failure(command: &str, uid: &str, answer: &[u8], complaint: &[u8]) -> CniError {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Report {
        code: u32,
        msg: String,
        details: String,
    }
    let report: Report = serde_json::from_slice(answer).unwrap_or_default();
    let words = [
        report.msg,
        report.details,
        String::from_utf8_lossy(complaint).trim().to_owned(),
    ];
    let mut message = words
        .into_iter()
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    if message.is_empty() {
        message = "it gave no reason".to_owned();
    }
    CniError::Failed {
        command: command.to_owned(),
        container: uid.to_owned(),
        message,
        code: report.code,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn network() -> NodeNetwork {
        NodeNetwork {
            pod_cidr: "10.85.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "10.85.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    fn plugin(script: &str) -> (tempfile::TempDir, Cni) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("plugin");
        std::fs::write(
            &program,
            format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display()),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut cni = Cni::new(&program, Path::new("/data/agent"), "ab12cd");
        cni.timeout = Duration::from_secs(5);
        (dir, cni)
    }

    #[test]
    fn add_gives_what_the_specification_asks_for() {
        let (dir, cni) = plugin(
            r#"cat > in; env | grep ^CNI_ | sort > env
            echo '{"cniVersion":"1.1.0","ips":[{"address":"10.85.0.7/32","interface":1}]}'"#,
        );
        let result = cni
            .add(
                &network(),
                "u1",
                Path::new("/run/x"),
                &Asked {
                    address: "10.85.0.7".parse().unwrap(),
                    group: "tenant",
                    realm: "ims",
                },
            )
            .unwrap();
        assert_eq!(result.address(), Some("10.85.0.7".parse().unwrap()));
        let sent: Value = serde_json::from_slice(&std::fs::read(dir.path().join("in")).unwrap()).unwrap();
        let wanted = json!({"ips": ["10.85.0.7/32"], "shareGroup": "tenant", "realm": "ims"});
        assert_eq!(sent["runtimeConfig"], wanted);
        assert_eq!(
            (&sent["type"], &sent["bpfDir"]),
            (&json!("gantry-cni"), &json!("/data/agent/bpf"))
        );
        let env = std::fs::read_to_string(dir.path().join("env")).unwrap();
        assert!(
            env.contains("CNI_COMMAND=ADD\nCNI_CONTAINERID=u1\nCNI_IFNAME=eth0\nCNI_NETNS=/run/x\n"),
            "{env}"
        );
    }

    #[test]
    fn its_own_words_are_passed_on() {
        let (_dir, cni) = plugin(r#"echo '{"code":11,"msg":"address taken","details":"10.85.0.7"}'; exit 1"#);
        let error = cni.del(&network(), "u1", Path::new("/run/x")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CNI DEL for u1 failed: address taken: 10.85.0.7"
        );
        let (_dir, cni) = plugin("echo oh no >&2; exit 3");
        assert!(
            cni.host(&network())
                .unwrap_err()
                .to_string()
                .ends_with("failed: oh no")
        );
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let (_dir, mut cni) = plugin("exec sleep 60");
        cni.timeout = Duration::from_millis(100);
        assert!(matches!(cni.host(&network()), Err(CniError::Timeout { .. })));
    }
}
