//! Project quotas under the real agent, on an ext4 of its own: what the kernel counts is what a pod has left on the disk. Where the
//! kernel has none, `SKIPPED` (`REQUIRE=quota` makes that a failure).

mod agent_support;

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent::runtime::{PodDir, Usage, Walk};
use gantry_nodeagent_api::*;
use nix::libc;

/// An ext4 that counts by project, in a file.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (file, mounted) = (dir.path().join("file"), dir.path().join("mounted"));
        fs::File::create(&file).unwrap().set_len(512 << 20).unwrap();
        fs::create_dir(&mounted).unwrap();
        let (file, mounted) = (file.to_str().unwrap(), mounted.to_str().unwrap());
        let make = "mkfs.ext4 -q -I 256 -O quota,project -E quotatype=prjquota";
        let mount = "mount -o loop,prjquota";
        for (command, more) in [(make, vec![file]), (mount, vec![file, mounted])] {
            let mut words = command.split(' ').chain(more);
            let done = Command::new(words.next().unwrap()).args(words).output();
            let failed = match done {
                Ok(done) if done.status.success() => continue,
                Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
                Err(e) => e.to_string(),
            };
            let why = format!("no file system with project quotas: {command}: {failed}");
            eprintln!("SKIPPED: {why}");
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|area| area == "quota"), "{why}");
            return None;
        }
        Some(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// What `quotactl(2)` says of a project, asked by the device: bytes, files and directories.
    fn of_project(&self, project: u32) -> (u64, u64) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let place = format!(" {} ext4 ", self.path().display());
        let device = mounts.lines().find_map(|line| Some(line.split_once(&place)?.0));
        let device = CString::new(device.unwrap()).unwrap();
        // SAFETY: numbers only.
        let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
        let (of_projects, into) = (2, (&raw mut found).cast());
        let command = libc::QCMD(libc::Q_GETQUOTA, of_projects);
        let project = i32::try_from(project).unwrap();
        // SAFETY: fills a `struct dqblk`.
        let asked = unsafe { libc::quotactl(command, device.as_ptr(), project, into) };
        assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        (found.dqb_curspace, found.dqb_curinodes)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = nix::mount::umount2(&self.path(), nix::mount::MntFlags::empty());
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
        // What is left after a failure goes with its last user.
        let _ = nix::mount::umount2(&self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn pod(agent: &Agent, last: u8, own_ids: bool, limit_mebi: u64, script: &str) -> PodConfig {
    let up = ["/bin/sh", "-c", "test -e /v/up"].map(str::to_owned).to_vec();
    let container = ContainerConfig {
        name: "c".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![format!("exec 2>/dev/null; {script}; echo >/v/up; sleep 1000")],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 64 << 20,
            ..Default::default()
        },
        mounts: vec![Mount {
            volume: "v".to_owned(),
            path: "/v".to_owned(),
            sub_path: None,
            read_only: false,
        }],
        readiness: Some(Probe {
            action: ProbeAction::Exec { command: up },
            initial_delay_ms: 0,
            period_ms: 200,
            timeout_ms: 5000,
            failure_threshold: 1,
            success_threshold: 1,
            termination_grace_s: None,
        }),
        ..ContainerConfig::default()
    };
    let volume = Volume::EmptyDir {
        limit_bytes: limit_mebi << 20,
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: format!("p{last}"),
        address: Some([10, 191, agent.third, last].into()),
        termination_grace_s: 1,
        containers: vec![container],
        volumes: [("v".to_owned(), volume)].into(),
        security: PodSecurity {
            own_ids,
            ..PodSecurity::default()
        },
        ..PodConfig::default()
    }
}

fn pod_dir(agent: &Agent, uid: &str) -> PathBuf {
    agent.data.path().join("agent/pods").join(uid)
}

/// As the agent counts.
fn usage(agent: &Agent, uid: &str) -> Usage {
    let mut walk = Walk::new(&PodDir::new(pod_dir(agent, uid)), Vec::new(), 10_000).unwrap();
    walk.step(20_000).unwrap()
}

/// The project of a directory, as another program reads it.
fn project(dir: &Path) -> u32 {
    let said = Command::new("lsattr").arg("-dp").arg(dir).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// Gives a file to a project, without inheritance, as root of a user namespace or of the host; the error's number.
fn give(file: &Path, project: u32, users: Option<&fs::File>) -> Result<(), i32> {
    // `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR` and `struct fsxattr` of linux/fs.h: flags first, the project is the fourth.
    const GET: libc::c_ulong = 0x801c_581f;
    const SET: libc::c_ulong = 0x401c_5820;
    let file = fs::File::open(file).unwrap();
    let (fd, users) = (file.as_raw_fd(), users.map(AsRawFd::as_raw_fd));
    let mut child = Command::new("true");
    let in_child = move || {
        let mut attributes = [0_u32; 7];
        // SAFETY: numbers, and 28 bytes that live here.
        let failed = unsafe {
            users.is_some_and(|users| {
                libc::setns(users, libc::CLONE_NEWUSER) != 0 || libc::setresuid(0, 0, 0) != 0
            }) || libc::ioctl(fd, GET, &raw mut attributes) != 0
        };
        if failed {
            return Err(std::io::Error::from_raw_os_error(libc::ECHILD));
        }
        attributes[0] = 0;
        attributes[3] = project;
        // SAFETY: the same.
        match unsafe { libc::ioctl(fd, SET, &raw const attributes) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: system calls only, between fork and exec.
    unsafe { child.pre_exec(in_child) };
    match child.status() {
        Ok(_) => Ok(()),
        Err(e) => Err(e.raw_os_error().unwrap()),
    }
}

/// Writes so many MiB.
fn write(to: &str, mebi: u32) -> String {
    format!("busybox dd if=/dev/zero bs=64k count={} {to}", mebi * 16)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_counts_what_a_pod_with_own_ids_writes() {
    let Some(cni) = cni_or_skip() else { return };
    let Some(disk) = Disk::new() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::on(&disk.path(), cni);
    let script = [
        "busybox rm -f /v/up".to_owned(),
        write("of=/named", 10),
        "exec 5>/gone; busybox rm /gone".to_owned(),
        write(">&5", 10),
        write("of=/v/data", 5),
    ];
    let script = script.join("; ");
    let hidden = format!("exec 5>/v/gone; busybox rm /v/gone; {}", write(">&5", 20));
    let pods = [
        ("u-own", pod(&agent, 2, true, 0, &script)),
        ("u-host", pod(&agent, 3, false, 0, &write("of=/v/data", 5))),
        ("u-over", pod(&agent, 4, true, 10, &hidden)),
    ];
    let wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let ready = |s: &NodeStatus| {
        ["u-own", "u-host"]
            .iter()
            .all(|uid| s.pods.get(*uid).is_some_and(|p| p.ready))
    };
    let status = orchestrator.until("two pods", ready).await;

    let own = pod_dir(&agent, "u-own");
    let (root, volume) = (project(&own.join("rootfs/c")), project(&own.join("volumes/v")));
    assert!(root != 0 && volume != 0 && root != volume, "{root} {volume}");
    let as_written = |what: &str| {
        let (seen, root, volume) = (
            usage(&agent, "u-own"),
            disk.of_project(root),
            disk.of_project(volume),
        );
        assert_eq!(seen.containers["c"], root.0, "{what}");
        assert_eq!(seen.volumes["v"], volume.0, "{what}");
        assert_eq!((root.0 >> 20, volume.0 >> 20), (20, 5), "{what}");
        // The directories and the record of the image are less than so much.
        assert!((root.0 | volume.0) & 0xf_ffff < 128 << 10, "{what}: {seen:?}");
        // And the log.
        assert_eq!(seen.entries, root.1 + volume.1 + 1, "{what}");
    };
    as_written("at first");

    // Root in there gives nothing away, neither from below nor by its own mounts; root of the host can.
    let users = fs::File::open(agent.data.path().join("agent/userns/u-own")).unwrap();
    let pid = status.pods["u-own"].containers[0].pid.unwrap();
    let inside = PathBuf::from(format!("/proc/{pid}/root"));
    let upper = own.join("rootfs/c/upper");
    let named = upper.join("named");
    let by_mounts = ["named", "v/data", "v"].map(|file| inside.join(file));
    for file in [&named, &upper].into_iter().chain(&by_mounts) {
        let given = give(file, 0, Some(&users));
        assert!(
            matches!(given, Err(libc::EINVAL | libc::EPERM)),
            "{}: {given:?}",
            file.display()
        );
    }
    as_written("after it was to be given away");
    assert_eq!(give(&named, 0, None), Ok(()));
    assert_eq!(disk.of_project(root).0 >> 20, 10);
    assert_eq!(give(&named, root, None), Ok(()));
    as_written("after it was given back");

    // Who could do that is walked.
    let host = pod_dir(&agent, "u-host");
    assert_eq!(
        (project(&host.join("rootfs/c")), project(&host.join("volumes/v"))),
        (0, 0)
    );
    assert_eq!(usage(&agent, "u-host").volumes["v"] >> 20, 5);

    // Of a volume, also what has no name there.
    let evicted = |s: &NodeStatus| {
        let over = &s.pods["u-over"];
        over.reason == Some(PodReason::Evicted)
            && over.message == "Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\"."
    };
    orchestrator.until("who is above its limit", evicted).await;

    // Another agent, and another run with a fresh root: the same projects.
    agent.stop(true);
    orchestrator.heard.lock().unwrap().clear();
    agent.start(&orchestrator);
    orchestrator.until("two pods again", ready).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    let again = |s: &NodeStatus| s.pods["u-own"].containers[0].restarts == 1 && ready(s);
    orchestrator.until("another run", again).await;
    assert_eq!(project(&own.join("rootfs/c/upper")), root);
    let log_of_another_run = 1;
    let seen = usage(&agent, "u-own");
    assert_eq!(seen.containers["c"], disk.of_project(root).0);
    assert_eq!(seen.containers["c"] >> 20, 20);
    assert_eq!(
        seen.entries,
        disk.of_project(root).1 + disk.of_project(volume).1 + 1 + log_of_another_run
    );

    // Nothing of a pod that is gone counts.
    let mut nobody = wanted;
    nobody.generation = Generation(2);
    nobody.pods.clear();
    orchestrator.wants(&nobody);
    orchestrator.until("no pods", |s| s.pods.is_empty()).await;
    assert_eq!((disk.of_project(root), disk.of_project(volume)), ((0, 0), (0, 0)));
}
