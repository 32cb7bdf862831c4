//! An orchestrator on a free port, in a temporary directory.

#![allow(dead_code)] // Each test binary uses a part of it.

pub mod agent;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gantry_orchestrator::apiserver::{ApiError, Limits, Objects, Planning};
use gantry_orchestrator::link::{LinkEvent, LinkHandle};
use gantry_orchestrator::renderer::Renderer;
use gantry_orchestrator::server::{Controllers, ServerConfig, serve};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Answers that nobody planned.
/// The planner panics when it is to explain a pod of this name.
pub const PANIC: &str = "panic";

struct NoPlanning;

#[async_trait]
impl Planning for NoPlanning {
    async fn dry_run(&self, objects: Vec<Value>) -> Result<Value, ApiError> {
        Ok(json!({"placements": [], "unplaced": [], "objects": objects.len()}))
    }

    async fn explain(&self, _: &str, pod: &str) -> Result<Option<Value>, ApiError> {
        assert_ne!(pod, PANIC, "as a defect would");
        Ok(None)
    }
}

/// A running server; ends with the value.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub objects: Objects,
    pub link: LinkHandle,
    pub events: mpsc::Receiver<LinkEvent>,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Without controllers: nobody but the test writes, and what agents say is in `events`.
    pub fn start() -> Self {
        Self::limited(Default::default())
    }

    /// The same within other limits.
    pub fn limited(limits: Limits) -> Self {
        Self::configured(|config| config.limits = limits.clone())
    }

    /// The same with another configuration.
    pub fn configured(change: impl Fn(&mut ServerConfig)) -> Self {
        let server = Self::launch(false, change);
        server.namespace("default");
        server
    }

    /// The whole of it.
    pub fn with_controllers() -> Self {
        Self::launch(true, |_| ())
    }

    fn launch(controllers: bool, change: impl Fn(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        // Somebody may take the port between the probe and the bind: then another.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut config = config(dir.path().to_owned(), address);
            change(&mut config);
            let (started, parts) = oneshot::channel();
            let stop = shutdown.clone();
            let task = runtime.spawn(async move {
                let done = serve(config, stop, |mut parts| async move {
                    let shutdown = parts.shutdown.clone();
                    let (_, mut events) = mpsc::channel(1);
                    if !controllers {
                        std::mem::swap(&mut events, &mut parts.events);
                    }
                    let _ = started.send((parts.objects.clone(), parts.link.clone(), events));
                    if controllers {
                        return gantry_orchestrator::controllers::start(parts).await;
                    }
                    let task = tokio::spawn(async move { shutdown.cancelled().await });
                    Ok(Controllers {
                        planning: Arc::new(NoPlanning),
                        task,
                    })
                });
                done.await.unwrap();
            });
            match runtime.block_on(parts) {
                Ok((objects, link, events)) => {
                    return Self {
                        dir,
                        address,
                        objects,
                        link,
                        events,
                        shutdown,
                        task: Some(task),
                        runtime: Some(runtime),
                    };
                }
                Err(_) => drop(runtime.block_on(task)),
            }
        }
        panic!("no port is free");
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) -> JoinHandle<()> {
        self.runtime.as_ref().unwrap().spawn(future)
    }

    /// Stops it and waits until it has come to its end.
    pub fn stop(mut self) {
        self.shutdown.cancel();
        let task = self.task.take().unwrap();
        let ended = self.block_on(async { tokio::time::timeout(Duration::from_secs(20), task).await });
        ended.expect("in time").unwrap();
    }

    pub fn namespace(&self, name: &str) {
        let kind = gantry_orchestrator::kinds::named("Namespace").unwrap();
        let input = json!({"metadata": {"name": name}});
        self.block_on(self.objects.create(kind, "", input, Default::default()))
            .unwrap();
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Runs kubectl with text on its standard input.
    pub fn kubectl_in(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = self
            .kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A kubectl to start.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .args(arguments);
        command
    }

    /// Standard output of a kubectl that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ok_in(arguments, "")
    }

    /// The same, with input.
    pub fn ok_in(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl_in(arguments, input);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "kubectl {arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Standard error of a kubectl that must fail.
    pub fn fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl_in(arguments, input);
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} succeeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

pub fn config(data_dir: PathBuf, listen: SocketAddr) -> ServerConfig {
    ServerConfig {
        data_dir,
        listen,
        names: Vec::new(),
        service_cidr: "10.86.0.0/16".parse().unwrap(),
        pod_cidr: "10.85.0.0/16".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
        cluster: None,
        limits: Default::default(),
        core_limits: Default::default(),
        renderer: Renderer::Here,
    }
}

/// True if kubectl is here; else says so, and fails if the tests are required.
pub fn has_kubectl() -> bool {
    if Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        return true;
    }
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|area| area == "kubectl"),
        "kubectl is required and not installed"
    );
    eprintln!("SKIPPED: kubectl is not installed");
    false
}

/// Polls until something is so.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
