//! Loading, pinning, attaching; which pods there are.

use std::collections::HashMap as StdHashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::maps::MapError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use gantry_ebpf_common::LAYOUT_VERSION;
use gantry_ebpf_common::layout::{Config, POD_IS_HOST, Pod, ServiceKey};

use crate::error::DatapathError;
use crate::lock::Lock;
use crate::maglev::Entry;
use crate::maps::{self, failed};
use crate::upgrade::FORMER_LAYOUT;
use crate::{bpffs, object, pins, upgrade};

const PROGRAM: &str = "from_pod";
const PROGRAM_NEXT: &str = "from_pod_next";
const LINKS: &str = "links";

/// Handle on the datapath pinned under one directory. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct Datapath {
    pub(crate) dir: PathBuf,
    /// Index of each service's table and what it was made from, as last written: a sync without changes writes none.
    pub(crate) tables: StdHashMap<ServiceKey, (u32, Vec<Entry>)>,
    /// The version of the tables in the kernel that `tables` is.
    pub(crate) tables_version: u32,
}

/// The node's networks, each as address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNet {
    /// Addresses of this node's pods and of its gateway.
    pub pods: (Ipv4Addr, u8),
    /// Addresses of services.
    pub services: (Ipv4Addr, u8),
    /// Interface index of the gateway device's peer, where the program sees what the host sends. Pods may not
    /// send from others' addresses in these networks; the host may.
    pub host_peer: u32,
}

/// A local receiver of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodEntry {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Host's end of its veth; for the host itself the gateway device.
    pub ifindex: u32,
    /// MAC address of its end.
    pub mac: [u8; 6],
    /// Is it the host itself?
    pub is_host: bool,
}

impl Datapath {
    /// Mounts a BPF file system at `dir` if there is none, loads and pins programs and maps, or takes what
    /// is pinned. Programs of another version are replaced on every interface without a gap; what the maps hold stays.
    pub fn ensure(dir: &Path) -> Result<Datapath, DatapathError> {
        {
            let _lock = Lock::share(dir)?;
            if let Some(datapath) = Datapath::open(dir)
                && datapath.is_current()?
            {
                return Ok(datapath);
            }
        }
        let _lock = Lock::take(dir)?;
        bpffs::ensure(dir)?;
        let datapath = Datapath {
            dir: dir.to_owned(),
            tables: StdHashMap::new(),
            tables_version: 0,
        };
        datapath.create_links_dir()?;
        let mut config = Config::default();
        if dir.join(maps::CONFIG).exists() {
            if datapath.is_current()? {
                return Ok(datapath);
            }
            config = datapath.config()?;
        }
        if config.layout == FORMER_LAYOUT {
            upgrade::set_aside(dir)?;
        }
        datapath.load(config.layout)?;
        config.layout = LAYOUT_VERSION;
        config.object_hash = object::hash();
        datapath.set_config(&config)?;
        for pin in upgrade::leftovers(dir) {
            pins::remove_file(&pin)?;
        }
        Ok(datapath)
    }

    /// Is what is pinned our own object? An error if its maps cannot be kept.
    fn is_current(&self) -> Result<bool, DatapathError> {
        let config = match self.config() {
            // So old that not even this struct has the size that it has now.
            Err(DatapathError::Map {
                source: MapError::InvalidValueSize { .. },
                ..
            }) => Config {
                layout: u32::MAX,
                ..Config::default()
            },
            other => other?,
        };
        // 0: whoever made it did not get to the end.
        if ![0, FORMER_LAYOUT, LAYOUT_VERSION].contains(&config.layout) {
            let (path, found) = (self.dir.clone(), config.layout);
            return Err(DatapathError::Layout {
                path,
                found,
                needed: LAYOUT_VERSION,
            });
        }
        let ours = config.layout == LAYOUT_VERSION && config.object_hash == object::hash();
        Ok(ours && self.dir.join(PROGRAM).exists())
    }

    /// Opens what [`Datapath::ensure`] has pinned; changes nothing. `None` if nothing is.
    pub fn open(dir: &Path) -> Option<Datapath> {
        let pinned = bpffs::is_mounted(dir) && dir.join(maps::CONFIG).exists() && dir.join(PROGRAM).exists();
        pinned.then(|| Datapath {
            dir: dir.to_owned(),
            tables: StdHashMap::new(),
            tables_version: 0,
        })
    }

    /// Removes programs, links, maps, the mount and the directory. Fine if nothing is there. Pins that are not
    /// ours stay, and with them the mount.
    pub fn unload(dir: &Path) -> Result<(), DatapathError> {
        if !dir.parent().is_some_and(Path::exists) {
            return Ok(());
        }
        let lock = Lock::take(dir)?;
        if !bpffs::is_mounted(dir) || remove_pins(dir)? {
            bpffs::remove(dir)?;
        }
        lock.remove()
    }

    /// Tells the program which networks are the node's, and where the host sends from.
    pub fn configure(&self, net: &NodeNet) -> Result<(), DatapathError> {
        let _lock = Lock::take(&self.dir)?;
        let mut config = self.config()?;
        (config.pod_net, config.pod_mask) = masked(net.pods);
        (config.service_net, config.service_mask) = masked(net.services);
        config.host_peer = net.host_peer;
        self.set_config(&config)
    }

    /// Puts the program on the ingress of an interface of the caller's network namespace, under a name of
    /// the caller's (no dots). Nothing happens if it is there already.
    ///
    /// The kernel waits for all its CPUs here (about 10 ms); several at once wait together.
    pub fn attach(&self, interface: &str, link_name: &str) -> Result<(), DatapathError> {
        let _lock = Lock::share(&self.dir)?;
        if self.is_attached(interface, link_name)? {
            return Ok(());
        }
        self.detach(link_name)?;
        let failed = |source| DatapathError::Attach {
            interface: interface.to_owned(),
            source,
        };
        let mut program = self.program()?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let link = program
            .attach_with_options(interface, TcAttachType::Ingress, options)
            .and_then(|id| program.take_link(id))
            .map_err(|e| failed(e.into()))?;
        let link = FdLink::try_from(link).map_err(|e| failed(e.into()))?;
        link.pin(self.link_path(link_name))
            .map_err(|e| failed(e.into()))?;
        Ok(())
    }

    /// Takes the program off the interface that it was put on under this name. Fine if it was not.
    pub fn detach(&self, link_name: &str) -> Result<(), DatapathError> {
        pins::remove_file(&self.link_path(link_name))
    }

    /// Is the program on this interface, under this name?
    pub fn is_attached(&self, interface: &str, link_name: &str) -> Result<bool, DatapathError> {
        if !self.link_path(link_name).exists() {
            return Ok(false);
        }
        let failed = |e: ProgramError| DatapathError::Attach {
            interface: interface.to_owned(),
            source: e.into(),
        };
        let ours = self.program()?.info().map_err(failed)?.id();
        let (_, attached) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).map_err(failed)?;
        Ok(attached.iter().any(|p| p.id() == ours))
    }

    /// Names of the links that are pinned.
    pub fn links(&self) -> Result<Vec<String>, DatapathError> {
        let mut names = pins::entries(&self.dir.join(LINKS))?;
        names.sort();
        Ok(names)
    }

    /// Packets to this address go to this receiver from now on.
    pub fn add_pod(&self, pod: &PodEntry) -> Result<(), DatapathError> {
        let flags = if pod.is_host { POD_IS_HOST } else { 0 };
        let value = Pod {
            ifindex: pod.ifindex,
            mac: pod.mac,
            flags,
        };
        let mut map = maps::hash::<u32, Pod>(&self.dir, maps::PODS)?;
        map.insert(u32::from(pod.ip), value, 0)
            .map_err(failed("write", maps::PODS))
    }

    /// Forgets the receiver at this address, what it may send, what is behind it, and its flows. Fine if there is none.
    pub fn remove_pod(&self, ip: Ipv4Addr) -> Result<(), DatapathError> {
        if let Some(pod) = self.pod(ip)? {
            self.forget_sender(pod.ifindex)?;
        }
        let mut map = maps::hash::<u32, Pod>(&self.dir, maps::PODS)?;
        maps::forget(&mut map, maps::PODS, &u32::from(ip))?;
        self.forget_subnets_of(ip)?;
        self.forget_flows_of_pod(ip)
    }

    /// The receiver at this address.
    pub fn pod(&self, ip: Ipv4Addr) -> Result<Option<PodEntry>, DatapathError> {
        let map = maps::hash::<u32, Pod>(&self.dir, maps::PODS)?;
        match map.get(&u32::from(ip), 0) {
            Ok(pod) => Ok(Some(entry(u32::from(ip), &pod))),
            Err(e) if maps::is_absent(&e) => Ok(None),
            Err(e) => Err(failed("read", maps::PODS)(e)),
        }
    }

    /// All local receivers, by address.
    pub fn pods(&self) -> Result<Vec<PodEntry>, DatapathError> {
        let map = maps::hash::<u32, Pod>(&self.dir, maps::PODS)?;
        let mut pods = Vec::new();
        for item in map.iter() {
            let (ip, pod) = item.map_err(failed("read", maps::PODS))?;
            pods.push(entry(ip, &pod));
        }
        pods.sort_by_key(|p| p.ip);
        Ok(pods)
    }

    pub(crate) fn config(&self) -> Result<Config, DatapathError> {
        let map = maps::array::<Config>(&self.dir, maps::CONFIG)?;
        map.get(&0, 0).map_err(failed("read", maps::CONFIG))
    }

    pub(crate) fn set_config(&self, config: &Config) -> Result<(), DatapathError> {
        let mut map = maps::array::<Config>(&self.dir, maps::CONFIG)?;
        map.set(0, config, 0).map_err(failed("write", maps::CONFIG))
    }

    fn create_links_dir(&self) -> Result<(), DatapathError> {
        let dir = self.dir.join(LINKS);
        std::fs::create_dir_all(&dir).map_err(pins::failed("create", &dir))
    }

    fn link_path(&self, name: &str) -> PathBuf {
        self.dir.join(LINKS).join(name)
    }

    fn program(&self) -> Result<SchedClassifier, DatapathError> {
        let path = self.dir.join(PROGRAM);
        SchedClassifier::from_pin(&path).map_err(|source| DatapathError::Program { path, source })
    }

    /// Loads our object over the pinned maps, puts it on every link, and only then gives it the pinned name.
    fn load(&self, former_layout: u32) -> Result<(), DatapathError> {
        fn failed(e: impl std::error::Error + Send + Sync + 'static) -> DatapathError {
            DatapathError::Load { source: e.into() }
        }
        let mut loader = EbpfLoader::new();
        loader.btf(None).default_map_pin_directory(&self.dir);
        let mut ebpf = loader.load(object::bytes()).map_err(failed)?;
        let program = ebpf
            .program_mut(PROGRAM)
            .expect("the object embedded at build time has this program");
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        if former_layout == FORMER_LAYOUT {
            upgrade::take_over(&self.dir)?;
        }
        let next = self.dir.join(PROGRAM_NEXT);
        pins::remove_file(&next)?;
        program.pin(&next).map_err(failed)?;
        for name in self.links()? {
            self.replace(program, &name)?;
        }
        let path = self.dir.join(PROGRAM);
        std::fs::rename(&next, &path).map_err(pins::failed("put the new program at", &path))
    }

    fn replace(&self, program: &mut SchedClassifier, link_name: &str) -> Result<(), DatapathError> {
        let failed = |source| DatapathError::Attach {
            interface: link_name.to_owned(),
            source,
        };
        let link = match PinnedLink::from_pin(self.link_path(link_name)) {
            // Its owner removed the pin a moment ago.
            Err(LinkError::SyscallError(e)) if e.io_error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(());
            }
            other => other.map_err(|e| failed(e.into()))?,
        };
        let link = SchedClassifierLink::try_from(FdLink::from(link)).map_err(|e| failed(e.into()))?;
        match program.attach_to_link(link) {
            // The interface is gone: its owner has yet to remove the pin.
            Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOLINK) => {
                Ok(())
            }
            Err(e) => Err(failed(e.into())),
            Ok(_) => Ok(()),
        }
    }
}

fn entry(ip: u32, pod: &Pod) -> PodEntry {
    let is_host = pod.flags & POD_IS_HOST != 0;
    PodEntry {
        ip: Ipv4Addr::from(ip),
        ifindex: pod.ifindex,
        mac: pod.mac,
        is_host,
    }
}

fn masked((address, prefix): (Ipv4Addr, u8)) -> (u32, u32) {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (u32::from(address) & mask, mask)
}

/// Removes our pins; is nothing else there?
fn remove_pins(dir: &Path) -> Result<bool, DatapathError> {
    let links = dir.join(LINKS);
    for pin in pins::entries(&links)? {
        pins::remove_file(&links.join(pin))?;
    }
    match std::fs::remove_dir(&links) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(pins::failed("remove", &links)(e)),
        _ => Ok(()),
    }?;
    let ours = maps::ALL.iter().chain(&[PROGRAM, PROGRAM_NEXT]);
    for pin in ours.map(|name| dir.join(name)).chain(upgrade::leftovers(dir)) {
        pins::remove_file(&pin)?;
    }
    // The kernel's own files in a BPF file system (`maps.debug`) go with the mount.
    Ok(pins::entries(dir)?.iter().all(|name| name.contains('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        let (net, mask) = masked((Ipv4Addr::new(10, 85, 0, 1), 24));
        assert_eq!((net, mask), (0x0a55_0000, 0xffff_ff00));
        assert_eq!(masked((Ipv4Addr::new(1, 2, 3, 4), 0)), (0, 0));
        assert_eq!(masked((Ipv4Addr::new(1, 2, 3, 4), 32)).1, u32::MAX);
    }
}
