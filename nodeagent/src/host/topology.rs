//! The node's CPUs and memory as the kernel shows them (Documentation/ABI/stable/sysfs-devices-node,
//! testing/sysfs-devices-system-cpu, admin-guide/cputopology.rst).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_topology::{Cpu, CpuId, CpuSet, NumaId, NumaNode, Topology};

/// A file of sysfs or procfs that is not as expected.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It holds something else than what the kernel's documentation says.
    #[error("{} holds `{text}`, which is no {wanted}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What was expected.
        wanted: &'static str,
    },
}

/// Reads the topology below `root`, which is `/` but for tests. CPUs that are offline are left out.
pub fn read(root: &Path) -> Result<Topology, TopologyError> {
    let system = root.join("sys/devices/system");
    let online = cpu_list(&system.join("cpu/online"))?;
    let numa_nodes = numa_nodes(root, &system)?;
    let mut numa_of = BTreeMap::new();
    for node in &numa_nodes {
        let file = system.join(format!("node/node{}/cpulist", node.id));
        // A kernel without NUMA has no such folder: everything is node 0.
        let cpus = if file.exists() {
            cpu_list(&file)?
        } else {
            online.clone()
        };
        numa_of.extend(cpus.iter().map(|cpu| (cpu, node.id)));
    }
    let mut cores = Numbers::default();
    let mut caches = Numbers::default();
    let mut cpus = Vec::new();
    for id in online.iter() {
        let dir = system.join(format!("cpu/cpu{id}"));
        let socket = number(&dir.join("topology/physical_package_id"))?.unwrap_or(0);
        // Siblings name each other; the lowest of them names the core.
        let core = first_of(&dir.join("topology/thread_siblings_list"))?.unwrap_or(id);
        let l3 = last_level_cache(&dir)?.unwrap_or(u32::MAX - socket);
        cpus.push(Cpu {
            id,
            core: cores.of(core),
            l3: caches.of(l3),
            numa: numa_of.get(&id).copied().unwrap_or(0),
            socket,
        });
    }
    Ok(Topology { cpus, numa_nodes })
}

/// Small numbers in order of first sight, for names that are unique but not small.
#[derive(Default)]
struct Numbers(BTreeMap<u32, u32>);

impl Numbers {
    fn of(&mut self, name: u32) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(name).or_insert(next)
    }
}

fn numa_nodes(root: &Path, system: &Path) -> Result<Vec<NumaNode>, TopologyError> {
    let ids = system.join("node/online");
    if !ids.exists() {
        let file = root.join("proc/meminfo");
        let memory_bytes = memory_total(&file)?;
        let hugepages = hugepages(&root.join("sys/kernel/mm/hugepages"))?;
        return Ok(vec![NumaNode {
            id: 0,
            memory_bytes,
            hugepages,
            distances: BTreeMap::from([(0, 10)]),
        }]);
    }
    let ids: Vec<NumaId> = cpu_list(&ids)?.iter().collect();
    let mut nodes = Vec::new();
    for id in &ids {
        let dir = system.join(format!("node/node{id}"));
        let file = dir.join("distance");
        let text = text(&file)?;
        // One number for each online node, in order.
        let distances: Option<Vec<u32>> = text.split_whitespace().map(|d| d.parse().ok()).collect();
        let distances = distances.ok_or(TopologyError::Content {
            path: file,
            text,
            wanted: "list of distances",
        })?;
        nodes.push(NumaNode {
            id: *id,
            memory_bytes: memory_total(&dir.join("meminfo"))?,
            hugepages: hugepages(&dir.join("hugepages"))?,
            distances: ids.iter().copied().zip(distances).collect(),
        });
    }
    Ok(nodes)
}

/// Bytes of `MemTotal:  24574 kB`, with `Node 0 ` before it in a node's own file.
pub(super) fn total_in(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| {
        let (_, value) = line.split_once("MemTotal:")?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.map(|kib| kib << 10)
}

fn memory_total(file: &Path) -> Result<u64, TopologyError> {
    let all = text(file)?;
    let wanted = "memory table with MemTotal";
    total_in(&all).ok_or_else(|| TopologyError::Content {
        path: file.to_owned(),
        text: all,
        wanted,
    })
}

/// Folders `hugepages-2048kB` with a file `nr_hugepages`; sizes of which none is reserved are left out.
fn hugepages(dir: &Path) -> Result<BTreeMap<u64, u64>, TopologyError> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(source) => {
            return Err(TopologyError::Read {
                path: dir.to_owned(),
                source,
            });
        }
    };
    for entry in entries {
        let entry = entry.map_err(|source| TopologyError::Read {
            path: dir.to_owned(),
            source,
        })?;
        let name = entry.file_name();
        let size = name.to_str().and_then(|n| {
            n.strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse::<u64>()
                .ok()
        });
        let Some(size_kib) = size else { continue };
        let count = number(&entry.path().join("nr_hugepages"))?.unwrap_or(0);
        if count > 0 {
            found.insert(size_kib << 10, u64::from(count));
        }
    }
    Ok(found)
}

/// The lowest CPU that shares the cache of level 3, which names the group; `None` where there is no such cache.
fn last_level_cache(cpu: &Path) -> Result<Option<CpuId>, TopologyError> {
    for index in 0..8 {
        let cache = cpu.join(format!("cache/index{index}"));
        if number(&cache.join("level"))? == Some(3) {
            return first_of(&cache.join("shared_cpu_list"));
        }
    }
    Ok(None)
}

fn first_of(file: &Path) -> Result<Option<CpuId>, TopologyError> {
    if file.exists() {
        Ok(cpu_list(file)?.iter().next())
    } else {
        Ok(None)
    }
}

fn cpu_list(file: &Path) -> Result<CpuSet, TopologyError> {
    let text = text(file)?;
    text.parse().map_err(|_| TopologyError::Content {
        path: file.to_owned(),
        text,
        wanted: "CPU list",
    })
}

/// `None` if there is no such file, or it says "unknown" (-1).
fn number(file: &Path) -> Result<Option<u32>, TopologyError> {
    if !file.exists() {
        return Ok(None);
    }
    let text = text(file)?;
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) if text == "-1" => Ok(None),
        Err(_) => Err(TopologyError::Content {
            path: file.to_owned(),
            text,
            wanted: "number",
        }),
    }
}

fn text(file: &Path) -> Result<String, TopologyError> {
    fs::read_to_string(file)
        .map(|text| text.trim().to_owned())
        .map_err(|source| TopologyError::Read {
            path: file.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, content: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    /// 2 sockets x 2 cores x 2 threads, siblings half a machine apart as firmware likes to number them; CPU 7 is offline.
    fn two_sockets() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let cpu = |id: u32, file: &str| format!("sys/devices/system/cpu/cpu{id}/{file}");
        write(root, "sys/devices/system/cpu/online", "0-6");
        for id in 0..8u32 {
            let socket = (id % 4) / 2;
            let sibling = if id == 3 {
                "3".to_owned()
            } else {
                format!("{},{}", id % 4, id % 4 + 4)
            };
            write(
                root,
                &cpu(id, "topology/physical_package_id"),
                &socket.to_string(),
            );
            write(root, &cpu(id, "topology/thread_siblings_list"), &sibling);
            write(root, &cpu(id, "cache/index0/level"), "1");
            write(root, &cpu(id, "cache/index3/level"), "3");
            write(
                root,
                &cpu(id, "cache/index3/shared_cpu_list"),
                if socket == 0 { "0-1,4-5" } else { "2-3,6" },
            );
        }
        write(root, "sys/devices/system/node/online", "0-1");
        for (id, cpus, distance) in [(0, "0-1,4-5", "10 21"), (1, "2-3,6-7", "21 10")] {
            let node = |file: &str| format!("sys/devices/system/node/node{id}/{file}");
            write(root, &node("cpulist"), cpus);
            write(root, &node("distance"), distance);
            write(
                root,
                &node("meminfo"),
                &format!("Node {id} MemTotal:  1048576 kB\nNode {id} MemFree: 5 kB"),
            );
            write(
                root,
                &node("hugepages/hugepages-1048576kB/nr_hugepages"),
                if id == 1 { "3" } else { "0" },
            );
        }
        dir
    }

    #[test]
    fn two_sockets_with_threads() {
        let dir = two_sockets();
        let found = read(dir.path()).unwrap();
        let rows: Vec<_> = found
            .cpus
            .iter()
            .map(|c| (c.id, c.core, c.l3, c.numa, c.socket))
            .collect();
        let wanted = [
            (0, 0, 0, 0, 0),
            (1, 1, 0, 0, 0),
            (2, 2, 1, 1, 1),
            (3, 3, 1, 1, 1),
            (4, 0, 0, 0, 0),
            (5, 1, 0, 0, 0),
            (6, 2, 1, 1, 1),
        ];
        assert_eq!(rows, wanted);
        assert_eq!(found.numa_nodes.len(), 2);
        let second = &found.numa_nodes[1];
        assert_eq!((second.id, second.memory_bytes), (1, 1 << 30));
        assert_eq!(second.hugepages, BTreeMap::from([(1 << 30, 3)]));
        assert_eq!(second.distances, BTreeMap::from([(0, 21), (1, 10)]));
        assert!(found.numa_nodes[0].hugepages.is_empty());
    }

    #[test]
    fn a_kernel_without_numa_and_a_file_that_is_no_list() {
        let dir = two_sockets();
        fs::remove_dir_all(dir.path().join("sys/devices/system/node")).unwrap();
        write(dir.path(), "proc/meminfo", "MemTotal:        2048 kB");
        let found = read(dir.path()).unwrap();
        assert_eq!(
            (found.numa_nodes.len(), found.numa_nodes[0].memory_bytes),
            (1, 2 << 20)
        );
        assert!(found.cpus.iter().all(|c| c.numa == 0));
        write(dir.path(), "sys/devices/system/cpu/online", "all");
        assert!(read(dir.path()).unwrap_err().to_string().contains("`all`"));
    }

    #[test]
    fn this_host() {
        let found = read(Path::new("/")).unwrap();
        assert!(!found.cpus.is_empty() && !found.numa_nodes.is_empty());
        let total: u64 = found.numa_nodes.iter().map(|n| n.memory_bytes).sum();
        assert!(total > 1 << 28, "{total}");
    }
}
