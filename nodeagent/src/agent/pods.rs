//! Does the core's work on pods: images, volumes, network, shim, cgroups. Everything here blocks, and may be repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_images::Rootfs;
use gantry_nodeagent_api::{NodeNetwork, PodConfig, RunEnd};

use super::cni::{Asked, Cni, CniError};
use super::netns::NetnsDir;
use super::rootfs::{read_record, rootfs_dir};
use super::watch::Watches;
use super::{Failure, Settings, wall};
use crate::chain::chain;
use crate::core::{Bounds, Exit, Limits, PodDone, PodFailure, PodOp, Run};
use crate::guard;
use crate::host::cgroup::Cgroups;
use crate::runtime::{
    ClaimsDir, ContainerExit, ContainerStart, ContainerState, LOG_MAX_BYTES, PodDir, RuntimeDir,
    RuntimeError, ShimHandle, ids::IdRanges, merge_argv, names, oom, quota::Projects, resolve_user, root,
    termination, volumes,
};

/// How long the kernel may take to end processes and let go of groups.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a shim may take to see that its containers have ended.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Everything that pods are made with.
pub(super) struct Pods {
    pub(super) settings: Arc<Settings>,
    pub(super) runtime: RuntimeDir,
    pub(super) cgroups: Cgroups,
    pub(super) netns: NetnsDir,
    pub(super) ids: IdRanges,
    pub(super) claims: ClaimsDir,
    pub(super) cni: Cni,
    pub(super) watches: Watches,
    /// Memory of the node, in bytes.
    pub(super) memory_bytes: u64,
    /// The last known network: DEL needs one.
    pub(super) network: Mutex<Option<NodeNetwork>>,
}

impl Pods {
    /// Does one thing for one pod.
    pub(super) fn perform(&self, uid: &str, op: PodOp) -> Result<PodDone, PodFailure> {
        let done = match op {
            PodOp::Prepare { pod, network } => self.prepare(uid, &pod, network).map(PodDone::Prepared),
            PodOp::Apply { container, bounds } => {
                self.confine(uid, &container, &bounds).map(|()| PodDone::Applied)
            }
            PodOp::Start {
                container,
                bounds,
                attempt,
                pod,
            } => self
                .start(uid, &container, &bounds, attempt, &pod)
                .map(PodDone::Started),
            PodOp::Signal { containers, kill } => self.signal(uid, &containers, kill),
            PodOp::Release { sure, keep_logs } => self.release(uid, sure, keep_logs),
            PodOp::Teardown => self.teardown(uid),
        };
        done.map_err(|failure| PodFailure {
            kind: failure.kind(),
            message: chain(&failure),
        })
    }

    /// Remembers the node's network.
    pub(super) fn knows(&self, network: NodeNetwork) {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = Some(network);
    }

    fn prepare(
        &self,
        uid: &str,
        pod: &PodConfig,
        network: Option<NodeNetwork>,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let dir = self.runtime.create_pod(uid)?;
        if let Err(RuntimeError::ShimGone { .. }) = ShimHandle::connect(&dir) {
            self.cgroups.kill_pod(uid, PATIENCE)?;
        }
        let ids = self.make_own_ids(uid, pod)?;
        let projects = ids.as_ref().and_then(|ids| Projects::of(&dir, pod, ids.first));
        let mut images = BTreeMap::new();
        for (nth, container) in pod.containers.iter().enumerate() {
            if let Some(projects) = projects {
                projects.make_root(&rootfs_dir(&dir, &container.name), nth)?;
            }
            let record = self.mount_image(&dir, container, ids.as_ref())?;
            images.insert(container.name.clone(), record.digest);
        }
        volumes::prepare(&dir, &self.claims, pod, projects)?;
        let files = self.connect(uid, pod, network.as_ref(), &dir)?;
        names::write_network_files(&dir, &files)?;
        ShimHandle::spawn(&dir, &self.settings.executable)?;
        self.watches.watch(uid, &dir)?;
        Ok(images)
    }

    /// The pod's network, and what its files say about it.
    fn connect(
        &self,
        uid: &str,
        pod: &PodConfig,
        network: Option<&NodeNetwork>,
        dir: &PodDir,
    ) -> Result<names::NetworkFiles, Failure> {
        let mut files = names::NetworkFiles::of(pod, network);
        if pod.host_network {
            return Ok(files);
        }
        let (Some(network), Some(address)) = (network, pod.address) else {
            return Err(Failure::Config(
                "the pod has no address, or the node no network".to_owned(),
            ));
        };
        files.address = Some(address.into());
        self.knows(network.clone());
        let done = network_mark(dir);
        if self.netns.exists(uid) && done.exists() {
            return Ok(files);
        }
        // Whatever a crash or reboot has left of an earlier one goes first.
        self.cni.del(network, uid, &self.netns.path(uid))?;
        let netns = self
            .netns
            .create(uid)
            .map_err(Failure::io("make network namespace", &self.netns.path(uid)))?;
        let asked = Asked {
            address,
            group: &pod.share_group(),
            realm: &pod.namespace,
        };
        let result = self.cni.add(network, uid, &netns, &asked)?;
        if result.address() != Some(address) {
            self.cni.del(network, uid, &netns)?;
            return Err(Failure::Config(format!(
                "the CNI plugin gave another address than {address}"
            )));
        }
        std::fs::write(&done, "").map_err(Failure::io("write", &done))?;
        Ok(files)
    }

    /// Makes the container's cgroup, if it is not there, and puts its bounds in force.
    fn confine(&self, uid: &str, container: &str, bounds: &Bounds) -> Result<(), Failure> {
        let Limits {
            resources,
            shared_cpus,
        } = &bounds.limits;
        self.cgroups
            .create(uid, container, resources, shared_cpus, &bounds.numa_nodes)?;
        self.cgroups.bound_pod(uid, bounds.pod_memory_bytes)?;
        Ok(())
    }

    fn start(
        &self,
        uid: &str,
        name: &str,
        bounds: &Bounds,
        attempt: u32,
        pod: &PodConfig,
    ) -> Result<Run, Failure> {
        let dir = self.runtime.pod(uid);
        let missing = || Failure::Config(format!("container {name} has no image or no configuration"));
        let container = pod
            .containers
            .iter()
            .find(|c| c.name == name)
            .ok_or_else(missing)?;
        let image = read_record(&dir, name).ok_or_else(missing)?;
        let argv = merge_argv(&image.entrypoint, &image.cmd, &container.command, &container.args)
            .map_err(|e| Failure::Config(format!("container {name}: {e}")))?;
        wall::check_apparmor(container)?;
        let userns = self.own_ids(uid, pod)?;
        let root = rootfs_dir(&dir, name);
        if attempt > 0 || Rootfs::open(&root).is_none() {
            self.clean(&root, userns.as_ref())?;
        }
        let rootfs = root.join("merged");
        let mut env: Vec<(String, String)> = (image.env.iter())
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        env.extend(container.env.iter().cloned());
        let cwd = if container.working_dir.is_empty() {
            image.working_dir.clone()
        } else {
            container.working_dir.clone()
        };
        let mut user = resolve_user(&rootfs, &image.user, &container.security)
            .map_err(|e| Failure::Config(chain(&e)))?;
        wall::check_user(uid, pod, container, &user)?;
        wall::add_groups(pod, &mut user);
        wall::check_own_ids(pod, container, &user)?;
        // libcontainer removes the cgroup of a container that it cannot make, and where it finds none it makes one without limits.
        self.confine(uid, name, bounds)?;
        if !container.security.privileged {
            self.cgroups
                .guard_devices(uid, name, wall::may_tunnel(container))?;
        }
        let mut mounts = volumes::container_mounts(&dir, &self.claims, pod, container)?;
        let (last_words, mount) = termination::fresh(&dir, container)?;
        mounts.extend(mount);
        let start = ContainerStart {
            name: name.to_owned(),
            attempt,
            user,
            seccomp: wall::seccomp(&self.settings.agent_dir, container)?,
            sysctls: pod.security.sysctls.clone(),
            open_files: container.open_files,
            oom_score_adj: oom::score_adj(pod, container, self.memory_bytes),
            rootfs,
            netns: (!pod.host_network).then(|| self.netns.path(uid)),
            userns,
            hostname: names::hostname(pod),
            argv,
            env,
            cwd,
            image_volumes: image.volumes.clone(),
            mounts,
            security: container.security.clone(),
            cgroup: self.cgroups.container_path(uid, name),
            log_path: new_log(&dir, name, attempt)?,
            log_max_bytes: LOG_MAX_BYTES,
            oom_events: self.cgroups.oom_events(uid, name),
            last_words,
        };
        root::prepare(&start)?;
        let shim = ShimHandle::connect(&dir).inspect_err(|e| self.watches.gone(uid, e))?;
        let started = shim.start_container(&start);
        Ok(run_of(&started.map_err(|e| Failure::start(e, &bounds.limits))?))
    }

    fn signal(&self, uid: &str, containers: &[String], kill: bool) -> Result<PodDone, Failure> {
        let dir = self.runtime.pod(uid);
        if kill && guard::off("kill") {
            return Ok(PodDone::Signalled);
        }
        let shim = match ShimHandle::connect(&dir) {
            Ok(shim) => shim,
            Err(e @ RuntimeError::ShimGone { .. }) => {
                self.watches.gone(uid, &e);
                return Ok(PodDone::Signalled);
            }
            Err(e) => return Err(e.into()),
        };
        for container in containers {
            let asked = read_record(&dir, container).map_or(0, |image| image.stop_signal);
            let number = match (kill, asked) {
                (true, _) => SIGKILL,
                (false, 0) => SIGTERM,
                (false, asked) => asked,
            };
            match shim.signal(container, number) {
                // It has ended meanwhile.
                Ok(()) | Err(RuntimeError::Refused(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(PodDone::Signalled)
    }

    /// Sends any signal to a container's first process; in words why it did not get it.
    pub(super) fn send(&self, uid: &str, container: &str, signal: u32) -> Result<(), String> {
        let number = i32::try_from(signal).map_err(|e| e.to_string())?;
        let shim = ShimHandle::connect(&self.runtime.pod(uid)).map_err(|e| chain(&e))?;
        shim.signal(container, number).map_err(|e| chain(&e))
    }

    /// A pod that has ended holds nothing but its logs and records.
    fn release(&self, uid: &str, sure: bool, keep_logs: bool) -> Result<PodDone, Failure> {
        let dir = self.runtime.pod(uid);
        let runs = |shim: ShimHandle| {
            shim.status()
                .map(|s| s.containers.iter().any(ContainerState::running))
        };
        if !sure && let Ok(true) = ShimHandle::connect(&dir).and_then(runs) {
            self.watches.watch(uid, &dir)?;
            return Err(Failure::Config(
                "the shim was taken for dead, and runs".to_owned(),
            ));
        }
        self.let_go(uid, &dir)?;
        dir.reduce_to_records(keep_logs)?;
        self.ids.free(uid)?;
        Ok(PodDone::Released)
    }

    fn teardown(&self, uid: &str) -> Result<PodDone, Failure> {
        let dir = self.runtime.pod(uid);
        self.let_go(uid, &dir)?;
        dir.remove()?;
        // The last: what it wrote had them.
        self.ids.free(uid)?;
        Ok(PodDone::TornDown)
    }

    /// Processes, shim, network, mounts, cgroups.
    fn let_go(&self, uid: &str, dir: &PodDir) -> Result<(), Failure> {
        self.watches.forget(uid);
        if !guard::off("kill") {
            self.cgroups.kill_pod(uid, PATIENCE)?;
        }
        end_shim(dir)?;
        let network = self
            .network
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(network) = network {
            self.cni.del(&network, uid, &self.netns.path(uid))?;
        }
        self.netns
            .remove(uid)
            .map_err(Failure::io("remove network namespace", &self.netns.path(uid)))?;
        volumes::unmount(dir)?;
        self.release_images(dir)?;
        self.cgroups.remove_pod(uid, PATIENCE)?;
        Ok(())
    }
}

/// A file that says that the pod has got its network.
pub(super) fn network_mark(dir: &PodDir) -> PathBuf {
    dir.path().join("network-up")
}

/// A shim goes when it has seen the end of all its containers.
fn end_shim(dir: &PodDir) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + SHUTDOWN_PATIENCE;
    loop {
        let ended = match ShimHandle::connect(dir) {
            Ok(shim) => shim.shutdown(),
            Err(e) => Err(e),
        };
        match ended {
            Err(RuntimeError::ShimGone { .. }) => return Ok(()),
            Err(e) if Instant::now() > deadline => return Err(e),
            // Ok: it goes in a moment; the next look finds it gone.
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The directory of a container's logs: `<attempt>.log`, the last two attempts.
pub(super) fn log_dir(dir: &PodDir, container: &str) -> PathBuf {
    dir.path().join("logs").join(container)
}

fn new_log(dir: &PodDir, container: &str, attempt: u32) -> Result<PathBuf, Failure> {
    let logs = log_dir(dir, container);
    std::fs::create_dir_all(&logs).map_err(Failure::io("create directory", &logs))?;
    for entry in std::fs::read_dir(&logs)
        .map_err(Failure::io("list", &logs))?
        .flatten()
    {
        if attempt_of(&entry.path()).is_some_and(|old| old + 1 < attempt) {
            // Only a log too many if it stays.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(logs.join(format!("{attempt}.log")))
}

/// The attempt that `<attempt>.log` or `<attempt>.log.1` is of.
pub(super) fn attempt_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

pub(super) fn run_of(state: &ContainerState) -> Run {
    Run {
        attempt: state.attempt,
        pid: state.pid,
        started_at_ms: state.started_at_ms,
        exit: state.exit.clone().map(exit_of),
    }
}

fn exit_of(exit: ContainerExit) -> Exit {
    let plain = Exit::with(exit.code, exit.at_ms);
    Exit {
        signal: exit.signal,
        reason: exit.reason.unwrap_or(plain.reason),
        message: exit.message,
        ..plain
    }
}

/// How the run before the last one ended.
pub(super) fn end_before(state: &ContainerState) -> Option<RunEnd> {
    let before = state.before.clone()?;
    let exit = exit_of(before.exit);
    Some(RunEnd {
        attempt: before.attempt,
        exit_code: exit.code,
        signal: exit.signal,
        reason: exit.reason,
        message: exit.message,
        started_at_ms: before.started_at_ms,
        finished_at_ms: exit.at_ms,
    })
}

impl From<CniError> for Failure {
    fn from(error: CniError) -> Self {
        Self::other(error)
    }
}
