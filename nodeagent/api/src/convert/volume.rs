//! Configuration: volumes and names.

use std::collections::BTreeMap;

use super::{InvalidMessage, list, parse, required};
use crate::{DnsPolicy, HostAlias, HostPathType, PodNames, Volume, VolumeFile, proto};

impl From<&Volume> for proto::Volume {
    fn from(m: &Volume) -> Self {
        use proto::volume::{Claim, EmptyDir, HostPath, Kind, Scratch};
        let kind = match m {
            Volume::Files(files) => Kind::Files(files.into()),
            Volume::SecretFiles(files) => Kind::SecretFiles(files.into()),
            Volume::Scratch { size_bytes } => Kind::Scratch(Scratch {
                size_bytes: *size_bytes,
            }),
            Volume::EmptyDir { limit_bytes } => Kind::EmptyDir(EmptyDir {
                limit_bytes: *limit_bytes,
            }),
            Volume::Claim { id, read_only } => Kind::Claim(Claim {
                id: id.clone(),
                read_only: *read_only,
            }),
            Volume::HostPath { path, kind } => Kind::HostPath(HostPath {
                path: path.clone(),
                r#type: proto::volume::HostPathType::from(*kind).into(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&BTreeMap<String, VolumeFile>> for proto::volume::Files {
    fn from(m: &BTreeMap<String, VolumeFile>) -> Self {
        let file = |f: &VolumeFile| proto::volume::File {
            data: f.data.clone(),
            mode: f.mode,
        };
        Self {
            files: m.iter().map(|(path, f)| (path.clone(), file(f))).collect(),
        }
    }
}

impl TryFrom<proto::Volume> for Volume {
    type Error = InvalidMessage;

    fn try_from(w: proto::Volume) -> Result<Self, InvalidMessage> {
        use proto::volume::Kind;
        Ok(match required("kind", w.kind)? {
            Kind::Files(v) => Self::Files(files(v)),
            Kind::SecretFiles(v) => Self::SecretFiles(files(v)),
            Kind::Scratch(v) => Self::Scratch {
                size_bytes: v.size_bytes,
            },
            Kind::EmptyDir(v) => Self::EmptyDir {
                limit_bytes: v.limit_bytes,
            },
            Kind::Claim(v) => Self::Claim {
                id: v.id,
                read_only: v.read_only,
            },
            Kind::HostPath(v) => Self::HostPath {
                kind: v.r#type().into(),
                path: v.path,
            },
        })
    }
}

impl From<HostPathType> for proto::volume::HostPathType {
    fn from(m: HostPathType) -> Self {
        match m {
            HostPathType::Any => Self::Unspecified,
            HostPathType::Directory => Self::Directory,
            HostPathType::DirectoryOrCreate => Self::DirectoryOrCreate,
            HostPathType::File => Self::File,
            HostPathType::FileOrCreate => Self::FileOrCreate,
            HostPathType::Socket => Self::Socket,
            HostPathType::CharDevice => Self::CharDevice,
            HostPathType::BlockDevice => Self::BlockDevice,
        }
    }
}

impl From<proto::volume::HostPathType> for HostPathType {
    fn from(w: proto::volume::HostPathType) -> Self {
        use proto::volume::HostPathType as Wire;
        match w {
            Wire::Unspecified => Self::Any,
            Wire::Directory => Self::Directory,
            Wire::DirectoryOrCreate => Self::DirectoryOrCreate,
            Wire::File => Self::File,
            Wire::FileOrCreate => Self::FileOrCreate,
            Wire::Socket => Self::Socket,
            Wire::CharDevice => Self::CharDevice,
            Wire::BlockDevice => Self::BlockDevice,
        }
    }
}

fn files(w: proto::volume::Files) -> BTreeMap<String, VolumeFile> {
    let file = |(path, f): (String, proto::volume::File)| {
        let (data, mode) = (f.data, f.mode);
        (path, VolumeFile { data, mode })
    };
    w.files.into_iter().map(file).collect()
}

impl From<&PodNames> for proto::PodNames {
    fn from(m: &PodNames) -> Self {
        Self {
            hostname: m.hostname.clone(),
            fqdn: m.fqdn.clone(),
            aliases: m
                .aliases
                .iter()
                .map(|alias| proto::pod_names::HostAlias {
                    address: alias.address.to_string(),
                    names: alias.names.clone(),
                })
                .collect(),
            dns_policy: match m.dns_policy {
                DnsPolicy::Cluster => proto::DnsPolicy::Cluster,
                DnsPolicy::Node => proto::DnsPolicy::Node,
                DnsPolicy::None => proto::DnsPolicy::None,
            }
            .into(),
            nameservers: m.nameservers.iter().map(ToString::to_string).collect(),
            searches: m.searches.clone(),
            options: m.options.clone(),
        }
    }
}

impl TryFrom<proto::PodNames> for PodNames {
    type Error = InvalidMessage;

    fn try_from(w: proto::PodNames) -> Result<Self, InvalidMessage> {
        let dns_policy = match w.dns_policy() {
            proto::DnsPolicy::Cluster | proto::DnsPolicy::Unspecified => DnsPolicy::Cluster,
            proto::DnsPolicy::Node => DnsPolicy::Node,
            proto::DnsPolicy::None => DnsPolicy::None,
        };
        let alias = |a: proto::pod_names::HostAlias| {
            Ok(HostAlias {
                address: parse("address", &a.address)?,
                names: a.names,
            })
        };
        Ok(Self {
            hostname: w.hostname,
            fqdn: w.fqdn,
            aliases: list("aliases", w.aliases, alias)?,
            dns_policy,
            nameservers: list("nameservers", w.nameservers, |text| parse("address", &text))?,
            searches: w.searches,
            options: w.options,
        })
    }
}
