//! Takes everything of one Gantry off the node, without an orchestrator.

use std::path::Path;
use std::time::Duration;

use gantry_ebpf::Datapath;
use gantry_nodeagent_api::NodeNetwork;

use super::Failure;
use super::cni::Cni;
use super::ledger::LedgerFile;
use super::lock::{self, Instance};
use super::netns::NetnsDir;
use super::settings::{PurgeArgs, absolute, check_instance, cni_bin};
use crate::host::cgroup::Cgroups;
use crate::runtime;

const PATIENCE: Duration = Duration::from_secs(10);

/// Removes processes, mounts, cgroups, network and the agent's directory. May be repeated; the directory goes last.
pub fn purge(args: &PurgeArgs) -> anyhow::Result<()> {
    check_instance(&args.instance)?;
    let data_dir = absolute("data-dir", &args.data_dir)?;
    // However it is spelled, the instance is the same directory's.
    let agent_dir = data_dir.canonicalize().unwrap_or(data_dir).join("agent");
    let (agent_dir, _lock) = if agent_dir.exists() {
        // As the agent itself names it: see `Settings::agent_dir`.
        let agent_dir = agent_dir
            .canonicalize()
            .map_err(Failure::io("look up", &agent_dir))?;
        let lock = lock::directory(&agent_dir)?;
        (agent_dir, Some(lock))
    } else {
        (agent_dir, None)
    };
    let cgroups = Cgroups::detect(&args.instance)?;
    let instance = Instance::claim(&args.instance, &agent_dir, &cgroups)?;
    runtime::purge(&agent_dir, &cgroups, PATIENCE)?;
    if agent_dir.exists() {
        remove_network(args, &agent_dir)?;
        // Whatever the plugin's mounts were, they are gone now; what is left are files.
        runtime::purge(&agent_dir, &cgroups, PATIENCE)?;
        gantry_images::remove_tree(&agent_dir).map_err(Failure::io("remove", &agent_dir))?;
    }
    instance.forget()
}

fn remove_network(args: &PurgeArgs, agent_dir: &Path) -> anyhow::Result<()> {
    let netns = NetnsDir::new(agent_dir);
    for uid in netns.uids()? {
        netns
            .remove(&uid)
            .map_err(Failure::io("remove network namespace", &netns.path(&uid)))?;
    }
    let network = LedgerFile::new(agent_dir)
        .load(None)
        .config
        .network
        .unwrap_or_else(any_network);
    let program = cni_bin(args.cni_bin.as_deref())?;
    Cni::new(&program, agent_dir, &args.instance).purge(&network)?;
    Datapath::unload(&agent_dir.join("bpf"))?;
    Ok(())
}

/// A purge goes by names, not by addresses; but a configuration has to have some.
fn any_network() -> NodeNetwork {
    NodeNetwork {
        pod_cidr: "10.85.0.0/24".parse().expect("a network"),
        service_cidr: "10.86.0.0/16".parse().expect("a network"),
        gateway: "10.85.0.1".parse().expect("an address"),
        cluster_domain: "cluster.local".to_owned(),
    }
}
