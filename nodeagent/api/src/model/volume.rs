//! What a pod brings along: volumes and the names it knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::ClaimId;

/// A volume of the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Volume {
    /// Files with given content, by path within the volume.
    Files(BTreeMap<String, VolumeFile>),
    /// The same, kept in memory only.
    SecretFiles(BTreeMap<String, VolumeFile>),
    /// A tmpfs with a size limit in bytes.
    #[serde(rename_all = "camelCase")]
    Scratch {
        /// 0 means the kernel's default, half of the node's memory.
        size_bytes: u64,
    },
    /// A directory on the node's disk, empty at first.
    #[serde(rename_all = "camelCase")]
    EmptyDir {
        /// With more in it the pod is evicted, in bytes; 0 means no limit.
        limit_bytes: u64,
    },
    /// A durable directory of the node, of [`super::NodeConfig::claims`].
    #[serde(rename_all = "camelCase")]
    Claim {
        /// Which.
        id: ClaimId,
        /// Nobody in the pod writes to it.
        read_only: bool,
    },
    /// A path of the host.
    #[serde(rename_all = "camelCase")]
    HostPath {
        /// Absolute path.
        path: String,
        /// What must be there.
        #[serde(default, rename = "type")]
        kind: HostPathType,
    },
}

/// What must be at a path of the host, in the words of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathType {
    /// Anything.
    #[default]
    Any,
    /// A directory.
    Directory,
    /// A directory, which is made if there is nothing.
    DirectoryOrCreate,
    /// A file.
    File,
    /// A file, which is made if there is nothing.
    FileOrCreate,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Volume {
    /// Its files, if those are given.
    pub fn files(&self) -> Option<&BTreeMap<String, VolumeFile>> {
        match self {
            Self::Files(files) | Self::SecretFiles(files) => Some(files),
            Self::Scratch { .. } | Self::EmptyDir { .. } | Self::HostPath { .. } | Self::Claim { .. } => None,
        }
    }

    /// The claim that it is, and whether only to read.
    pub fn claim(&self) -> Option<(&ClaimId, bool)> {
        match self {
            Self::Claim { id, read_only } => Some((id, *read_only)),
            _ => None,
        }
    }
}

/// One file of a volume.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct VolumeFile {
    /// Its content, any bytes.
    pub data: Vec<u8>,
    /// Its permissions, `0o000` to `0o777`.
    pub mode: u32,
}

/// [`VolumeFile::mode`] where nobody says another.
pub const DEFAULT_FILE_MODE: u32 = 0o644;

impl From<&str> for VolumeFile {
    fn from(text: &str) -> Self {
        Self {
            data: text.as_bytes().to_vec(),
            mode: DEFAULT_FILE_MODE,
        }
    }
}

/// Never its content: that may be a secret.
impl std::fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VolumeFile({} bytes, {:o})", self.data.len(), self.mode)
    }
}

/// A file in JSON: text where it is text. The first version wrote the text alone.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Alone(String),
    Text { text: String, mode: u32 },
    Bytes { base64: Base64, mode: u32 },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Base64(Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        STANDARD.encode(bytes.0)
    }
}

impl From<Written> for VolumeFile {
    fn from(written: Written) -> Self {
        match written {
            Written::Alone(text) => Self::from(text.as_str()),
            Written::Text { text, mode } => Self {
                data: text.into_bytes(),
                mode,
            },
            Written::Bytes { base64, mode } => Self { data: base64.0, mode },
        }
    }
}

impl From<VolumeFile> for Written {
    fn from(file: VolumeFile) -> Self {
        let mode = file.mode;
        match String::from_utf8(file.data) {
            Ok(text) => Self::Text { text, mode },
            Err(bytes) => Self::Bytes {
                base64: Base64(bytes.into_bytes()),
                mode,
            },
        }
    }
}

/// How a pod is called, and how it asks for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodNames {
    /// Host name; empty means the pod's name.
    pub hostname: String,
    /// Full name in `/etc/hosts`; empty if it has none.
    pub fqdn: String,
    /// More lines of `/etc/hosts`.
    pub aliases: Vec<HostAlias>,
    /// Whom it asks for names first.
    pub dns_policy: DnsPolicy,
    /// Name servers, after those of the policy.
    pub nameservers: Vec<IpAddr>,
    /// Domains that short names are looked up in, after those of the policy.
    pub searches: Vec<String>,
    /// `name` or `name:value`, after those of the policy; the last of a name counts.
    pub options: Vec<String>,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostAlias {
    /// Address.
    pub address: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

/// Whom a pod asks for names first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DnsPolicy {
    /// The node's DNS, which knows the services.
    #[default]
    Cluster,
    /// Whom the node itself asks.
    Node,
    /// Only those that the pod names.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json_and_the_first_version_is_read() {
        for data in [b"text".to_vec(), vec![0xff, 0, 1]] {
            let file = VolumeFile { data, mode: 0o400 };
            let text = serde_json::to_string(&file).unwrap();
            assert_eq!(serde_json::from_str::<VolumeFile>(&text).unwrap(), file, "{text}");
        }
        let first = r#"{"files":{"a":"text"}}"#;
        let volume: Volume = serde_json::from_str(first).unwrap();
        assert_eq!(volume, Volume::Files([("a".to_owned(), "text".into())].into()));
        let shown = format!("{:?}", VolumeFile::from("secret"));
        assert_eq!(shown, "VolumeFile(6 bytes, 644)");
    }
}
