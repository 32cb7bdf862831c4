//! Ways into a pod, with the real `kubectl` where it is installed and with `gantry`: input that ends, files both ways, ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, poll};
use serde_json::json;

use crate::{PATIENCE, machine, skip};

/// More than fits into any pipe or window on the way.
const BULK_BYTES: usize = 3 << 20;
/// Connections at once.
const CONNECTIONS: usize = 8;

#[test]
fn input_files_and_ports_go_into_a_pod_and_out_of_it() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("images", "busybox-static is not installed");
        return Ok(());
    }
    let gantry = Gantry::new("inside", false)?;
    gantry.first_up(&["--pod-cidr", "10.124.0.0/16", "--service-cidr", "10.125.0.0/16"])?;
    let files = tempfile::tempdir()?;
    let layout = busybox::layout(files.path())?;
    gantry.run(&["image", "import", &layout.to_string_lossy()])?;
    let api = Api::of(&gantry)?;
    let echo = json!({"name": "c", "image": busybox::IMAGE, "args": ["nc -ll -p 9000 -e cat"]});
    // The same ways lead into a pod with ids of its own.
    for (pod, host_users) in [("p", true), ("own", false)] {
        let spec = json!({"terminationGracePeriodSeconds": 1, "hostUsers": host_users,
            "containers": [echo, {"name": "other", "image": busybox::IMAGE, "args": ["sleep 1000"]}]});
        api.make(
            "/api/v1/namespaces/default/pods",
            &json!({"metadata": {"name": pod}, "spec": spec}),
        )?;
    }
    for pod in ["p", "own"] {
        ways_into(&gantry, files.path(), pod).with_context(|| format!("pod {pod}"))?;
    }
    let map = gantry.text_of(
        &["exec", "own", "-c", "c", "--", "cat", "/proc/self/uid_map"],
        &[],
    )?;
    let map: Vec<&str> = map.split_whitespace().collect();
    ensure!(map[0] == "0" && map[1] != "0" && map[2] == "65536", "{map:?}");
    Ok(())
}

fn ways_into(gantry: &Gantry, files: &Path, pod: &str) -> Result<()> {
    let input: Vec<u8> = (0..BULK_BYTES).map(|i| (i % 251) as u8).collect();
    let counted = || {
        gantry
            .text_of(&["exec", "-i", pod, "-c", "c", "--", "wc", "-c"], &input)
            .ok()
    };
    let counted = poll(PATIENCE, || counted().filter(|text| !text.is_empty()));
    ensure!(
        counted.as_deref().map(str::trim) == Some(&BULK_BYTES.to_string()),
        "{counted:?}"
    );
    forwards(gantry.start(&["port-forward", pod, ":9000", ":9001"])?, &input)?;

    if Command::new("kubectl")
        .arg("--help")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        skip("kubectl", "kubectl is not installed");
        return Ok(());
    }
    let kubectl = |args: &[&str]| {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(gantry.kubeconfig()).args(args);
        command.stdout(Stdio::piped());
        command
    };
    let mut child = kubectl(&["exec", "-i", pod, "-c", "c", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no input")?.write_all(&input)?;
    let counted = String::from_utf8(child.wait_with_output()?.stdout)?;
    ensure!(
        counted.trim() == BULK_BYTES.to_string(),
        "kubectl exec -i: {counted:?}"
    );
    let code = kubectl(&["exec", pod, "-c", "c", "--", "sh", "-c", "exit 7"])
        .status()?
        .code();
    ensure!(code == Some(7), "kubectl exec: {code:?}");
    copies(&kubectl, files, pod, &input)?;
    forwards(kubectl(&["port-forward", pod, ":9000", ":9001"]).spawn()?, &input)
}

/// A file goes into a container and comes back the same.
fn copies(kubectl: &impl Fn(&[&str]) -> Command, directory: &Path, pod: &str, content: &[u8]) -> Result<()> {
    let inside = format!("{pod}:/copy");
    let (there, back) = (directory.join("there"), directory.join("back"));
    std::fs::write(&there, content)?;
    for (from, to) in [
        (there.to_string_lossy().as_ref(), inside.as_str()),
        (&inside, &back.to_string_lossy()),
    ] {
        let status = kubectl(&["cp", "-c", "c", from, to]).status()?;
        ensure!(status.success(), "kubectl cp {from} {to}");
    }
    ensure!(
        std::fs::read(back)? == content,
        "kubectl cp: it came back different"
    );
    Ok(())
}

/// A child that forwards to an echo and to a port where nobody listens; it is ended in any case.
fn forwards(mut child: Child, content: &[u8]) -> Result<()> {
    let result = child.stdout.take().context("no output").and_then(|out| {
        let mut lines = BufReader::new(out).lines();
        let mut next = |port: u16| -> Result<SocketAddr> {
            // kubectl listens on ::1 as well.
            let wanted = |line: &String| line.contains("127.0.0.1:") && line.ends_with(&format!("-> {port}"));
            let line = lines
                .by_ref()
                .map_while(Result::ok)
                .find(wanted)
                .context("it does not forward")?;
            let address = line.split_whitespace().nth(2).context("no address")?;
            Ok(address.parse()?)
        };
        let (echo, nobody) = (next(9000)?, next(9001)?);
        let all: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                thread::spawn({
                    let content = content.to_vec();
                    move || echoes(echo, &content)
                })
            })
            .collect();
        for one in all {
            one.join()
                .map_err(|_| anyhow::anyhow!("a connection panicked"))??;
        }
        let mut stream = TcpStream::connect(nobody)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let ended = stream.read(&mut [0; 8]);
        ensure!(matches!(ended, Ok(0) | Err(_)), "somebody is there: {ended:?}");
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    result
}

fn echoes(address: SocketAddr, content: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE + Duration::from_secs(30)))?;
    let mut to = stream.try_clone()?;
    let sent = content.to_vec();
    let feed = thread::spawn(move || to.write_all(&sent));
    let mut heard = vec![0; content.len()];
    stream.read_exact(&mut heard)?;
    feed.join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(heard == content, "the echo is not what was said");
    Ok(())
}
