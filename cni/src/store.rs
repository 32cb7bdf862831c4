//! What this plugin remembers, in files below `dataDir`: intents and address reservations. Each file has
//! one owner; a lock guards choosing.
//!
//! `intents/<container>@<ifname>.json`  written and synced before the first change to the node
//! `addresses/<address>`               holds the owner, `<container> <ifname>`
//! `host.json`                         the configuration that the host device was made for
//! `boot`                              the boot of the node that all this is about

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::config::is_host_address;
use crate::environment::Target;
use crate::error::{CniError, file};

/// What an ADD is about to make, then what it made.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Intent {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// Host's end of the link.
    pub link: String,
    /// The pod's address, once ADD is through.
    pub address: Option<Ipv4Addr>,
}

impl Intent {
    /// Whose it is.
    pub fn target(&self) -> Target {
        Target {
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

/// The kernel's name for the time between two boots.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT: &str = "boot";
const HOST: &str = "host.json";
const LOCK: &str = "lock";

/// The files below one data directory.
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Creates the directories. What was written before the node last booted is forgotten: nothing of it is left
    /// in the kernel, and a power cut may have cut off files.
    pub fn create(dir: &Path) -> Result<Store, CniError> {
        let store = Store { dir: dir.to_owned() };
        store.create_dirs()?;
        let boot = std::fs::read(BOOT_ID).map_err(file("read", BOOT_ID))?;
        let path = store.dir.join(BOOT);
        if read(&path)?.as_deref() == Some(&boot) {
            return Ok(store);
        }
        let _lock = store.lock()?;
        let before = read(&path)?;
        if before.as_deref() != Some(&boot) {
            if before.is_some() {
                store.forget_all()?;
            }
            write(&path, &boot, true)?;
        }
        Ok(store)
    }

    fn create_dirs(&self) -> Result<(), CniError> {
        for sub in [self.intents(), self.addresses()] {
            if std::fs::metadata(&sub).is_ok_and(|found| !found.is_dir()) {
                // Damage: what is no directory holds no reservation, and nobody could add one.
                remove(&sub)?;
            }
            std::fs::create_dir_all(&sub).map_err(file("create", &sub))?;
        }
        Ok(())
    }

    fn forget_all(&self) -> Result<(), CniError> {
        self.remove_dirs()?;
        self.create_dirs()
    }

    /// Looks without creating anything.
    pub fn at(dir: &Path) -> Store {
        Store { dir: dir.to_owned() }
    }

    fn intents(&self) -> PathBuf {
        self.dir.join("intents")
    }

    fn addresses(&self) -> PathBuf {
        self.dir.join("addresses")
    }

    fn intent_path(&self, target: &Target) -> PathBuf {
        self.intents()
            .join(format!("{}@{}.json", target.container, target.ifname))
    }

    /// Where the host device's configuration is kept.
    pub fn host_path(&self) -> PathBuf {
        self.dir.join(HOST)
    }

    /// One process at a time; until dropped.
    pub fn lock(&self) -> Result<Flock<File>, CniError> {
        let path = self.dir.join(LOCK);
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let opened = opened.map_err(file("open", &path))?;
        Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, e)| file("lock", &path)(e.into()))
    }

    /// The intent of a target. A file that is cut off (its writer died before anything else) is none.
    pub fn intent(&self, target: &Target) -> Result<Option<Intent>, CniError> {
        Ok(read(&self.intent_path(target))?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// All intents.
    pub fn all_intents(&self) -> Result<Vec<Intent>, CniError> {
        let mut intents = Vec::new();
        for path in list(&self.intents())? {
            intents.extend(read(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
        }
        Ok(intents)
    }

    /// Puts an intent on disk. `sync`: it survives a power cut, its directory entry included.
    pub fn write_intent(&self, intent: &Intent, sync: bool) -> Result<(), CniError> {
        let path = self.intent_path(&intent.target());
        let bytes = serde_json::to_vec(intent).expect("an intent has string keys only");
        write(&path, &bytes, sync)
    }

    /// Forgets an intent.
    pub fn remove_intent(&self, target: &Target) -> Result<(), CniError> {
        remove(&self.intent_path(target))
    }

    /// Reserves `wanted`, or the lowest free address of `net`.
    pub fn reserve(
        &self,
        target: &Target,
        wanted: Option<Ipv4Addr>,
        net: &Ipv4Net,
        gateway: Ipv4Addr,
    ) -> Result<Ipv4Addr, CniError> {
        let _lock = self.lock()?;
        if let Some(address) = wanted {
            let owner = self.owner(address)?;
            return match owner {
                Some(owner) if owner != owner_text(target) => Err(CniError::AddressInUse { address, owner }),
                Some(_) => Ok(address),
                None => self.take(address, target).map(|()| address),
            };
        }
        let free =
            |a: &Ipv4Addr| *a != gateway && is_host_address(net, *a) && !self.address_path(*a).exists();
        let address = net.hosts().find(free).ok_or(CniError::NoAddress(*net))?;
        self.take(address, target)?;
        Ok(address)
    }

    fn address_path(&self, address: Ipv4Addr) -> PathBuf {
        self.addresses().join(address.to_string())
    }

    fn take(&self, address: Ipv4Addr, target: &Target) -> Result<(), CniError> {
        write(&self.address_path(address), owner_text(target).as_bytes(), false)
    }

    fn owner(&self, address: Ipv4Addr) -> Result<Option<String>, CniError> {
        // A file that is cut off (a power cut, before versions knew of boots) is nobody's.
        let bytes = read(&self.address_path(address))?.filter(|b| !b.is_empty());
        Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
    }

    /// Addresses reserved for a target.
    pub fn reserved(&self, target: &Target) -> Result<Vec<Ipv4Addr>, CniError> {
        let mut found = Vec::new();
        for path in list(&self.addresses())? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Ok(address) = name.parse() else { continue };
            if self.owner(address)?.as_deref() == Some(&owner_text(target)) {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// Gives an address back.
    pub fn release(&self, address: Ipv4Addr) -> Result<(), CniError> {
        remove(&self.address_path(address))
    }

    /// Removes everything that this store wrote, and the directory if nothing else is in it.
    pub fn remove_all(&self) -> Result<(), CniError> {
        self.remove_dirs()?;
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for name in entries.map(|e| e.file_name()).filter(|name| is_ours(name)) {
            remove(&self.dir.join(name))?;
        }
        match std::fs::remove_dir(&self.dir) {
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(file("remove", &self.dir)(e))
            }
            _ => Ok(()),
        }
    }

    fn remove_dirs(&self) -> Result<(), CniError> {
        for sub in [self.intents(), self.addresses()] {
            match std::fs::remove_dir_all(&sub) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(file("remove", &sub)(e)),
                _ => Ok(()),
            }?;
        }
        Ok(())
    }
}

/// Is it one of our files, or what the death of its writer left of one?
fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let own = |own: &str| name == own || name.starts_with(&format!(".{own}."));
    [HOST, BOOT, LOCK].into_iter().any(own)
}

fn owner_text(target: &Target) -> String {
    format!("{} {}", target.container, target.ifname)
}

/// A file's bytes, `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, CniError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file("read", path)(e)),
    }
}

fn write_new(path: &Path, bytes: &[u8], sync: bool) -> Result<(), CniError> {
    let mut out = File::create(path).map_err(file("create", path))?;
    out.write_all(bytes).map_err(file("write", path))?;
    if sync {
        out.sync_data().map_err(file("sync", path))?;
    }
    Ok(())
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, bytes: &[u8], sync: bool) -> Result<(), CniError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let written = write_new(&temporary, bytes, sync)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(file("write", path)));
    if written.is_err() {
        // Each call would leave another one on a disk that is full.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    if sync {
        let dir_file = File::open(dir).map_err(file("open", dir))?;
        dir_file.sync_all().map_err(file("sync", dir))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), CniError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Files of a directory, temporary ones left out; none if it does not exist.
fn list(dir: &Path) -> Result<Vec<PathBuf>, CniError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(file("read", dir)(e)),
    };
    let visible = |e: &std::fs::DirEntry| !e.file_name().to_string_lossy().starts_with('.');
    Ok(entries.flatten().filter(visible).map(|e| e.path()).collect())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
