//! What templates are rendered with: the names that they may use, field by field.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LONGEST_FUNCTION_NAME, NfPackageSpec, Plane, Transport};

/// Instances of a peer, in the extreme.
const MANY: u32 = 64;

/// All that the templates of a function may name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Defaults of the package with the function's own over them.
    pub values: BTreeMap<String, Value>,
    /// By their names under `needs`.
    pub peers: BTreeMap<String, PeerContext>,
    /// The function itself.
    #[serde(rename = "self")]
    pub own: OwnContext,
    /// All functions of its service: in files of an instance, of a package that says `seesService`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Vec<FunctionContext>>,
}

/// The function that the files are for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnContext {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name in DNS.
    pub host: String,
    /// Its virtual address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Which of its instances, in files of an instance.
    #[serde(flatten)]
    pub instance: Option<OwnInstance>,
}

/// One instance, as its own files see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnInstance {
    /// Stable number, from 0.
    pub index: u32,
    /// Its name, for example `pgw-0`.
    pub instance: String,
    /// Its own name in DNS.
    pub hostname: String,
    /// Its address.
    pub address: String,
    /// What it owns behind it, if the package says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<SubnetContext>,
}

/// Addresses behind an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubnetContext {
    /// For example `10.45.0.0/20`.
    pub cidr: String,
    /// Its first address.
    pub gateway: String,
    /// Length of its prefix in bits.
    pub prefix: u8,
}

impl From<Ipv4Net> for SubnetContext {
    fn from(net: Ipv4Net) -> Self {
        Self {
            cidr: net.to_string(),
            gateway: net.hosts().next().unwrap_or(net.network()).to_string(),
            prefix: net.prefix_len(),
        }
    }
}

/// Another function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerContext {
    /// Its name.
    pub name: String,
    /// Its name in DNS: of a headless function that of all its instances that take new work.
    pub host: String,
    /// Its virtual address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// The port of the interface that is needed.
    pub port: u16,
    /// Its instances, in files of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceContext>>,
}

/// An instance of another function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceContext {
    /// Stable number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its own name in DNS, which is answered for as long as it runs.
    pub host: String,
    /// Its address.
    pub address: String,
    /// Its size beside the others'.
    pub weight: u32,
    /// It is able to work.
    pub ready: bool,
    /// It keeps what it has, and takes nothing new.
    pub draining: bool,
}

/// A function of the same service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionContext {
    /// Its name.
    pub name: String,
    /// As 3GPP names it.
    pub role: String,
    /// What it carries.
    pub plane: Plane,
    /// Its name in DNS.
    pub host: String,
    /// Its virtual address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// What it serves.
    pub interfaces: Vec<InterfaceContext>,
    /// Its instances.
    pub instances: Vec<InstanceContext>,
}

/// A connection point of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceContext {
    /// Name.
    pub name: String,
    /// Application protocol.
    pub protocol: String,
    /// Transport.
    pub transport: Transport,
    /// Port.
    pub port: u16,
}

impl FunctionContext {
    /// What a package says of it; the rest is who runs it.
    pub fn of(package: &NfPackageSpec) -> Self {
        let served = package.interfaces.iter().filter(|i| i.service);
        let interface = |i: &crate::Interface| InterfaceContext {
            name: i.name.clone(),
            protocol: i.protocol.clone(),
            transport: i.transport,
            port: i.port,
        };
        Self {
            role: package.role.clone(),
            plane: package.plane,
            interfaces: served.map(interface).collect(),
            ..Self::default()
        }
    }
}

impl NfPackageSpec {
    /// What templates are rendered with for a function of this name, in an example: the package's values with others over them,
    /// and addresses that nobody has (RFC 5737). First for the files that all instances share, then, if there are such, for
    /// those of one.
    pub fn example_contexts(&self, name: &str, values: &BTreeMap<String, Value>) -> Vec<Context> {
        self.examples_of(self.example_shared(name, values), 1)
    }

    /// The extremes that templates have to bear: names as long as they may be and many instances of all that is needed; and none of
    /// any, of what is needed only the indispensable.
    pub(crate) fn extreme_contexts(&self) -> Vec<Context> {
        let mut large = self.example_shared(&long("x"), &BTreeMap::new());
        for (need, peer) in &mut large.peers {
            peer.name = long(need);
            peer.host = host(&peer.name);
        }
        let mut small = self.example_shared("x", &BTreeMap::new());
        let spare = |need: &&crate::Need| need.optional;
        for need in self.needs.iter().filter(spare) {
            small.peers.remove(&need.function);
        }
        let mut all = self.examples_of(large, MANY);
        all.extend(self.examples_of(small, 0));
        all
    }

    /// Of what all instances share, and, if there are such files, of one instance; each peer has so many.
    fn examples_of(&self, shared: Context, instances: u32) -> Vec<Context> {
        let own = self.config.iter().any(|file| file.instance);
        let own = own.then(|| self.example_instance(shared.clone(), instances));
        [shared].into_iter().chain(own).collect()
    }

    fn example_shared(&self, name: &str, values: &BTreeMap<String, Value>) -> Context {
        let mut all = self.values.clone();
        all.extend(values.clone());
        let peer = |(n, need): (usize, &crate::Need)| {
            let peer = PeerContext {
                name: need.function.clone(),
                host: host(&need.function),
                vip: Some(format!("192.0.2.{}", (n + 2) % 256)),
                port: 5060,
                instances: None,
            };
            (need.function.clone(), peer)
        };
        Context {
            values: all,
            peers: self.needs.iter().enumerate().map(peer).collect(),
            own: OwnContext {
                name: name.to_owned(),
                namespace: "default".to_owned(),
                host: host(name),
                vip: (!self.headless).then(|| "192.0.2.1".to_owned()),
                instance: None,
            },
            functions: None,
        }
    }

    fn example_instance(&self, mut context: Context, instances: u32) -> Context {
        for peer in context.peers.values_mut() {
            let all = (0..instances).map(|index| example_instance(&peer.name, index));
            peer.instances = Some(all.collect());
        }
        let name = context.own.name.clone();
        let owned = self.interfaces.iter().find_map(|i| i.subnet.as_ref());
        context.own.instance = Some(OwnInstance {
            index: 0,
            instance: format!("{name}-0"),
            hostname: format!("{name}-0.{}", host(&name)),
            address: "198.51.100.1".to_owned(),
            subnet: owned.and_then(|subnet| Some(subnet.of(&context.values, 0).ok()?.into())),
        });
        context.functions = self.sees_service.then(|| {
            let peers = context.peers.values().map(|peer| FunctionContext {
                name: peer.name.clone(),
                role: "AS".to_owned(),
                host: peer.host.clone(),
                instances: peer.instances.clone().unwrap_or_default(),
                ..FunctionContext::default()
            });
            let own = FunctionContext {
                name: name.clone(),
                host: host(&name),
                instances: vec![example_instance(&name, 0)],
                ..FunctionContext::of(self)
            };
            peers.chain([own]).collect()
        });
        context
    }
}

fn host(name: &str) -> String {
    format!("{name}.default.svc.cluster.local")
}

/// A name of a function that is as long as one may be.
fn long(name: &str) -> String {
    format!("{name:x<0$.0$}", LONGEST_FUNCTION_NAME)
}

fn example_instance(function: &str, index: u32) -> InstanceContext {
    InstanceContext {
        index,
        name: format!("{function}-{index}"),
        host: format!("{function}-{index}.{}", host(function)),
        address: "198.51.100.2".to_owned(),
        weight: 1,
        ready: true,
        draining: false,
    }
}
