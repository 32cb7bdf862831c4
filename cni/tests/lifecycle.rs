//! The plugin as runtimes see it: results, errors, repetition, sudden death, and nothing left behind.

mod support;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use gantry_ebpf::Datapath;
use serde_json::json;
use support::netns::run_ip;
use support::{Node, can_run, failure, success};

/// Links, masquerade table, mounts and files of the node's instance.
fn leftovers(node: &Node) -> Vec<String> {
    let mut left = node.links();
    let tables = node.ns.run(|| {
        Command::new("nft")
            .args(["list", "tables"])
            .output()
            .unwrap()
            .stdout
    });
    left.extend(String::from_utf8_lossy(&tables).lines().map(str::to_owned));
    let own = node.path().to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let bpf = |line: &&str| line.contains(own) && line.contains(" bpf ");
    left.extend(mounts.lines().filter(bpf).map(str::to_owned));
    let files = std::fs::read_dir(node.path()).unwrap().flatten();
    let names = files.map(|e| e.file_name().to_string_lossy().into_owned());
    left.extend(names.filter(|n| n.starts_with("cni") || n.starts_with("bpf")));
    left
}

/// What one attachment leaves: its link, link pin, pod entry, address and intent.
fn traces(node: &Node) -> Vec<String> {
    let host = [format!("gh{}", node.instance), format!("gp{}", node.instance)];
    let mut left: Vec<String> = node.links().into_iter().filter(|l| !host.contains(l)).collect();
    for sub in ["intents", "addresses"] {
        let entries = std::fs::read_dir(node.data_dir().join(sub))
            .into_iter()
            .flatten()
            .flatten();
        left.extend(entries.map(|e| e.path().display().to_string()));
    }
    if let Some(datapath) = Datapath::open(&node.bpf_dir()) {
        left.extend(
            datapath
                .links()
                .unwrap()
                .into_iter()
                .filter(|l| !host.contains(l)),
        );
        left.extend(
            datapath
                .pods()
                .unwrap()
                .iter()
                .filter(|p| !p.is_host)
                .map(|p| format!("{p:?}")),
        );
    }
    left
}

/// Does the pod have its end of a link?
fn can_send(pod: &support::Pod) -> bool {
    let links = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    pod.ns.run(links).contains("eth0:")
}

#[test]
fn results_follow_the_version_asked_for() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifea");
    for (version, id) in [("0.4.0", "a"), ("1.0.0", "b"), ("1.1.0", "c")] {
        let pod = node.bare_pod(id);
        let asked = json!({"cniVersion": version});
        let result = success(node.command("ADD", &pod, asked.clone()));
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(
            result["interfaces"][1]["sandbox"],
            pod.ns.path().to_str().unwrap()
        );
        assert_eq!(result["ips"][0]["gateway"], "10.85.0.1");
        assert_eq!(result["ips"][0].get("version").is_some(), version == "0.4.0");
        assert_eq!(result["interfaces"][1].get("mtu").is_some(), version == "1.1.0");
        let check = json!({"cniVersion": version, "prevResult": result});
        success(node.command("CHECK", &pod, check));
        let stale = json!({"cniVersion": version, "prevResult": {"ips": [{"address": "10.85.0.99/32"}]}});
        assert_eq!(failure(node.command("CHECK", &pod, stale))["code"], 105);
        success(node.command("DEL", &pod, asked));
    }
    assert_eq!(traces(&node), [""; 0]);
    let versions = success(node.run(
        &[],
        &[("CNI_COMMAND", "VERSION")],
        &json!({"cniVersion": "1.0.0"}),
    ));
    assert_eq!(versions["supportedVersions"], json!(["0.4.0", "1.0.0", "1.1.0"]));
    success(node.run(&[], &[("CNI_COMMAND", "STATUS")], &node.config(json!({}))));
}

#[test]
fn addresses_asked_for_are_given_and_guarded() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifeb");
    let (a, b) = (node.bare_pod("a"), node.bare_pod("b"));
    let asked = json!({"runtimeConfig": {"ips": ["10.85.0.7/32"]}});
    assert_eq!(
        success(node.command("ADD", &a, asked.clone()))["ips"][0]["address"],
        "10.85.0.7/32"
    );
    let error = failure(node.command("ADD", &b, asked.clone()));
    assert_eq!(error["code"], 103);
    assert!(
        error["msg"].as_str().unwrap().contains("held by a eth0"),
        "{error}"
    );
    assert_eq!(failure(node.command("ADD", &a, asked.clone()))["code"], 104);
    success(node.command("CHECK", &a, json!({})));
    success(node.command("DEL", &a, json!({})));
    success(node.command("ADD", &b, asked));
    success(node.command("DEL", &b, json!({})));
}

#[test]
fn del_converges_whatever_is_left() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifec");
    success(node.purge());
    assert_eq!(leftovers(&node), [""; 0], "a purge of nothing makes nothing");
    let never = node.bare_pod("never");
    success(node.command("DEL", &never, json!({})));
    let pod = node.pod("a");
    success(node.command("DEL", &pod, json!({})));
    success(node.command("DEL", &pod, json!({})));
    assert_eq!(traces(&node), [""; 0]);
    // The namespace is gone, and so is the link, before DEL comes.
    let pod = node.pod("b");
    pod.ns.remove();
    success(node.command("DEL", &pod, json!({})));
    assert_eq!(traces(&node), [""; 0]);
    // GC removes what the runtime has forgotten.
    let (_kept, _lost) = (node.pod("kept"), node.pod("lost"));
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]});
    success(node.run(&[], &[("CNI_COMMAND", "GC")], &node.config(valid)));
    let left = traces(&node);
    assert!(
        left.iter().any(|l| l.contains("kept@eth0")) && !left.iter().any(|l| l.contains("lost")),
        "{left:?}"
    );
}

#[test]
fn check_sees_each_thing_that_can_go() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifed");
    let broken = |id: &str, breakage: &dyn Fn(&support::Pod, &str)| {
        let pod = node.pod(id);
        success(node.command("CHECK", &pod, json!({})));
        let host = node
            .links()
            .into_iter()
            .find(|l| l.starts_with("glifed"))
            .unwrap();
        breakage(&pod, &host);
        let error = failure(node.command("CHECK", &pod, json!({})));
        assert_eq!(error["code"], 105, "{error}");
        success(node.command("DEL", &pod, json!({})));
        error["msg"].as_str().unwrap().to_owned()
    };
    let inside = |pod: &support::Pod, args: &[&str]| pod.ns.run(|| run_ip(args));
    let m = broken("a", &|p, _| inside(p, &["link", "set", "eth0", "down"]));
    assert!(m.contains("down"), "{m}");
    let m = broken("g", &|p, _| inside(p, &["link", "set", "eth0", "arp", "on"]));
    assert!(m.contains("ARP"), "{m}");
    let m = broken("h", &|_, host| {
        node.ns.run(|| run_ip(&["link", "set", host, "arp", "on"]))
    });
    assert!(m.contains("ARP"), "{m}");
    let m = broken("b", &|p, _| inside(p, &["addr", "flush", "dev", "eth0"]));
    assert!(m.contains("address"), "{m}");
    let m = broken("c", &|p, _| inside(p, &["route", "del", "default"]));
    assert!(m.contains("default route"), "{m}");
    let m = broken("d", &|_, host| node.datapath().detach(host).unwrap());
    assert!(m.contains("program"), "{m}");
    let m = broken("e", &|p, _| node.datapath().remove_pod(p.ip).unwrap());
    assert!(m.contains("lead"), "{m}");
    let m = broken("f", &|_, host| node.ns.run(|| run_ip(&["link", "del", host])));
    assert!(m.contains("host"), "{m}");
    assert_eq!(
        failure(node.command("CHECK", &node.bare_pod("never"), json!({})))["code"],
        3
    );
}

#[test]
fn killed_at_any_step_nothing_stays_that_del_and_purge_do_not_remove() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifee");
    let killed = |command: &str, pod: &support::Pod, step: u32| {
        let step = step.to_string();
        let output = node.command_with(command, pod, json!({}), &[("GANTRY_CNI_CRASH_AT", &step)]);
        assert_eq!(output.status.signal(), Some(9), "{command} at step {step}");
    };
    for step in 1..=11 {
        // A new node each time: steps 2 to 4 are the host device's.
        let pod = node.bare_pod(&format!("add{step}"));
        killed("ADD", &pod, step);
        success(node.command("DEL", &pod, json!({})));
        assert_eq!(traces(&node), [""; 0], "after step {step}");
        // Without DEL in between an unfinished ADD is taken up again; a finished one must be deleted first.
        killed("ADD", &pod, step.clamp(5, 10));
        success(node.command("ADD", &pod, json!({})));
        success(node.command("CHECK", &pod, json!({})));
        success(node.command("DEL", &pod, json!({})));
        success(node.purge());
        assert_eq!(leftovers(&node), [""; 0], "after step {step}");
    }
    for step in 20..=23 {
        let pod = node.pod(&format!("del{step}"));
        killed("DEL", &pod, step);
        if step == 21 {
            let known = node.datapath().pod(pod.ip).unwrap().is_some();
            assert!(known && !can_send(&pod), "cut off before it is forgotten");
        }
        success(node.command("DEL", &pod, json!({})));
        assert_eq!(traces(&node), [""; 0], "after step {step}");
    }
    for step in 30..=32 {
        let _pod = node.pod(&format!("purge{step}"));
        let env = [("GANTRY_CNI_CRASH_AT", &*step.to_string())];
        assert_eq!(
            node.run(&["purge"], &env, &node.config(json!({})))
                .status
                .signal(),
            Some(9)
        );
        success(node.purge());
        assert_eq!(leftovers(&node), [""; 0], "after step {step}");
    }
    success(node.purge());
}

#[test]
fn errors_say_what_to_do_and_leave_nothing() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifef");
    let pod = node.bare_pod("a");
    let code = |changes| failure(node.command("ADD", &pod, changes))["code"].clone();
    assert_eq!(code(json!({"cniVersion": "0.2.0"})), 1);
    assert_eq!(code(json!({"podCidr": "nonsense"})), 6);
    assert_eq!(code(json!({"gateway": "192.0.2.1"})), 7);
    let valid = node.config(json!({}));
    assert_eq!(failure(node.run(&[], &[], &valid))["code"], 4);
    assert_eq!(
        failure(node.run(&[], &[("CNI_COMMAND", "ADD")], &valid))["code"],
        4
    );
    let host = node.ns.path().to_str().unwrap();
    for netns in ["/nowhere", host] {
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a"),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
        ];
        assert_eq!(failure(node.run(&[], &env, &valid))["code"], 4, "{netns}");
    }
    assert_eq!(
        leftovers(&node),
        [""; 0],
        "nothing is touched before all is valid"
    );
    // No nft: the one tool that we call.
    let error = failure(node.command_with("ADD", &pod, json!({}), &[("PATH", "/nowhere")]));
    assert_eq!(error["code"], 102);
    assert!(
        error["msg"].as_str().unwrap().contains("nftables package"),
        "{error}"
    );
    assert_eq!(traces(&node), [""; 0]);
    // The pods' network is somebody else's: theirs stays.
    let theirs = node.config(json!({"podCidr": "198.51.100.0/24", "gateway": "198.51.100.1"}));
    node.ns.run(|| {
        run_ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        run_ip(&["addr", "add", "198.51.100.9/24", "dev", "up0"]);
        run_ip(&["link", "set", "up0", "up"]);
    });
    let error = failure(node.run(&["host"], &[], &theirs));
    assert!(
        error["msg"].as_str().unwrap().contains("in use elsewhere"),
        "{error}"
    );
    node.ns.run(|| run_ip(&["link", "del", "up0"]));
    // The name is taken in the pod.
    pod.ns
        .run(|| run_ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "other"]));
    assert_eq!(failure(node.command("ADD", &pod, json!({})))["code"], 100);
    assert_eq!(traces(&node), [""; 0]);
}

#[test]
fn many_at_once_on_a_fresh_node() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("lifeg");
    let pods: Vec<_> = (0..8).map(|i| node.bare_pod(&format!("p{i}"))).collect();
    let each = |command: &'static str| -> Vec<serde_json::Value> {
        std::thread::scope(|s| {
            let (node, pods) = (&node, &pods);
            let start = |pod| s.spawn(move || success(node.command(command, pod, json!({}))));
            let threads: Vec<_> = pods.iter().map(start).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    };
    let results = each("ADD");
    let addresses: BTreeSet<_> = results
        .iter()
        .map(|r| r["ips"][0]["address"].to_string())
        .collect();
    assert_eq!(addresses.len(), pods.len());
    each("CHECK");
    each("DEL");
    assert_eq!(traces(&node), [""; 0]);
    let host = node.config(json!({}));
    success(node.run(&["host"], &[], &host));
    success(node.purge());
    assert_eq!(leftovers(&node), [""; 0]);
}
