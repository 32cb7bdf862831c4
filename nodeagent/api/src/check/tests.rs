//! Each thing that makes no sense, beside a pod that goes on.

use super::*;
use crate::NodeNetwork;

fn config() -> NodeConfig {
    let mut config = NodeConfig {
        network: Some(NodeNetwork {
            pod_cidr: "10.85.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "10.85.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        }),
        shared_cpus: "0-1".parse().unwrap(),
        ..NodeConfig::default()
    };
    for (uid, address, cpus) in [("a", "10.85.0.2", "2"), ("b", "10.85.0.3", "3")] {
        let mut container = ContainerConfig {
            name: "c".to_owned(),
            ..ContainerConfig::default()
        };
        container.resources.cpus = cpus.parse().unwrap();
        let pod = PodConfig {
            name: uid.to_owned(),
            address: Some(address.parse().unwrap()),
            containers: vec![container],
            ..PodConfig::default()
        };
        config.pods.insert(uid.to_owned(), pod);
    }
    config
}

fn refused(edit: impl FnOnce(&mut NodeConfig)) -> String {
    let mut config = config();
    assert!(config.faults(|_| false).is_empty());
    edit(&mut config);
    let faults: Vec<String> = config.faults(|_| false).into_values().collect();
    assert_eq!(faults.len(), 1, "the other pod goes on: {faults:?}");
    faults.into_iter().collect()
}

#[test]
fn a_pod_with_a_cpu_of_another_is_left_out() {
    let pod = |c: &mut NodeConfig, cpus: &str| {
        c.pods.get_mut("b").unwrap().containers[0].resources.cpus = cpus.parse().unwrap();
    };
    assert!(refused(|c| pod(c, "2-3")).contains("CPUs 2 have another owner"));
    assert!(refused(|c| pod(c, "1")).contains("CPUs 1 have another owner"));
}

#[test]
fn a_claim_is_one_of_the_nodes_and_no_path() {
    let with = |config: &mut NodeConfig, id: &str, listed: &[&str]| {
        let volume = Volume::Claim {
            id: id.to_owned(),
            read_only: false,
        };
        let pod = config.pods.get_mut("b").unwrap();
        pod.volumes.insert("v".to_owned(), volume);
        let claims = listed.iter().map(|id| ((*id).to_owned(), Default::default()));
        config.claims = Some(claims.collect());
    };
    let mut good = config();
    with(&mut good, "0-1", &["0-1"]);
    assert!(good.faults(|_| false).is_empty());
    assert!(refused(|c| with(c, "0-1", &["0-2"])).contains("the node has no claim `0-1`"));
    for bad in ["..", "../x", "", "a/b"] {
        assert!(refused(|c| with(c, bad, &[bad])).contains("is no claim"), "{bad}");
    }
    // One that has ended needs none any more.
    good.claims = None;
    good.pods.get_mut("b").unwrap().desired = PodDesired::Keep;
    assert!(good.faults(|_| false).is_empty());
}

#[test]
fn who_is_to_be_asked_at_port_0_is_left_out() {
    let get = crate::HttpGet {
        port: 0,
        path: "/".to_owned(),
        headers: Vec::new(),
    };
    let probe = |action| {
        Some(crate::Probe {
            action,
            initial_delay_ms: 0,
            period_ms: 1000,
            timeout_ms: 1000,
            failure_threshold: 1,
            success_threshold: 1,
            termination_grace_s: None,
        })
    };
    let hook = Hook::HttpGet(get.clone());
    let container = |edit: &dyn Fn(&mut ContainerConfig)| {
        assert!(refused(|c| edit(&mut c.pods.get_mut("a").unwrap().containers[0])).contains("port 0"));
    };
    container(&|c| c.readiness = probe(ProbeAction::TcpSocket { port: 0 }));
    container(&|c| c.liveness = probe(ProbeAction::HttpGet(get.clone())));
    container(&|c| c.startup = probe(ProbeAction::TcpSocket { port: 0 }));
    container(&|c| c.post_start = Some(hook.clone()));
    container(&|c| c.pre_stop = Some(hook.clone()));
    let sessions = crate::SessionProbe {
        port: 0,
        path: "/".to_owned(),
        metric: "m".to_owned(),
    };
    assert!(refused(|c| c.pods.get_mut("a").unwrap().sessions = Some(sessions)).contains("port 0"));
}

#[test]
fn who_holds_something_already_keeps_it() {
    let mut config = config();
    config.pods.get_mut("a").unwrap().address = Some("10.85.0.3".parse().unwrap());
    for (holder, at_fault) in [("a", "b"), ("b", "a")] {
        let faults = config.faults(|uid| uid == holder);
        assert_eq!(faults.keys().collect::<Vec<_>>(), [at_fault]);
    }
}

#[test]
fn names_that_leave_their_folder_are_left_out() {
    for uid in ["..", "a/b", ""] {
        refused(|c| {
            let pod = c.pods.remove("a").unwrap();
            c.pods.insert(uid.to_owned(), pod);
        });
    }
    refused(|c| {
        let files = Volume::Files([("../x".to_owned(), "".into())].into());
        c.pods.get_mut("a").unwrap().volumes.insert("v".to_owned(), files);
    });
}

#[test]
fn what_no_start_would_take_is_left_out() {
    for name in ["A", "a_b", "a.b", ""] {
        refused(|c| c.pods.get_mut("a").unwrap().containers[0].name = name.to_owned());
    }
    for sub_path in ["", "/x", "../x"] {
        let text = refused(|c| {
            let pod = c.pods.get_mut("a").unwrap();
            pod.volumes
                .insert("v".to_owned(), Volume::Scratch { size_bytes: 1 });
            pod.containers[0].mounts = vec![crate::Mount {
                volume: "v".to_owned(),
                path: "/v".to_owned(),
                sub_path: Some(sub_path.to_owned()),
                read_only: false,
            }];
        });
        assert!(text.contains("sub path"), "{text}");
    }
}

#[test]
fn an_id_that_the_kernel_takes_for_none_is_left_out() {
    let edits: [fn(&mut PodConfig, u32); 4] = [
        |pod, id| pod.containers[0].security.user = Some(id),
        |pod, id| pod.containers[0].security.group = Some(id),
        |pod, id| pod.security.supplemental_groups = vec![0, id],
        |pod, id| pod.security.fs_group = Some(id),
    ];
    for edit in edits {
        for id in [MAX_ID + 1, u32::MAX] {
            let text = refused(|c| edit(c.pods.get_mut("a").unwrap(), id));
            assert!(text.contains("is no user or group"), "{text}");
        }
        let mut good = config();
        edit(good.pods.get_mut("a").unwrap(), MAX_ID);
        assert!(good.faults(|_| false).is_empty());
    }
}

#[test]
fn pods_on_the_hosts_network_share_its_address() {
    let mut config = config();
    for pod in config.pods.values_mut() {
        pod.host_network = true;
        pod.address = Some("192.0.2.1".parse().unwrap());
    }
    assert!(config.faults(|_| false).is_empty());
    let text = refused(|c| {
        let pod = c.pods.get_mut("a").unwrap();
        pod.host_network = true;
        pod.security.own_ids = true;
    });
    assert!(text.contains("ids of its own"), "{text}");
}

#[test]
fn addresses_are_of_the_node_and_of_one_pod() {
    for address in ["10.85.1.2", "10.85.0.1", "10.85.0.3"] {
        refused(|c| c.pods.get_mut("a").unwrap().address = Some(address.parse().unwrap()));
    }
}

#[test]
fn subnets_are_networks_of_nobody_else() {
    for (subnet, why) in [
        ("10.85.0.0/16", "holds pods' addresses"),
        ("10.85.0.128/25", "holds pods' addresses"),
        ("10.86.3.0/24", "holds services' addresses"),
        ("0.0.0.0/0", "which nobody has"),
        ("127.0.0.1/32", "which nobody has"),
        ("239.1.0.0/16", "which nobody has"),
        ("10.45.0.1/16", "has more than its prefix: 10.45.0.0/16"),
    ] {
        let text = refused(|c| c.pods.get_mut("a").unwrap().subnets = vec![subnet.parse().unwrap()]);
        assert!(text.contains(why), "{subnet}: {text}");
    }
    let nets = |count: u8| {
        (0..count)
            .map(|i| format!("10.45.{i}.0/24").parse().unwrap())
            .collect::<Vec<_>>()
    };
    let many = refused(|c| c.pods.get_mut("a").unwrap().subnets = nets(17));
    assert_eq!(many, "17 subnets are behind it, and 16 may be");
    let twice = refused(|c| c.pods.get_mut("a").unwrap().subnets = [nets(1), nets(1)].concat());
    assert_eq!(twice, "subnet 10.45.0.0/24 is there twice");
    let text = refused(|c| {
        let pod = c.pods.get_mut("a").unwrap();
        (pod.host_network, pod.subnets) = (true, nets(1));
    });
    assert!(text.contains("the host's network"), "{text}");
    // Two pods may want the same: which of them gets it the datapath says.
    let mut good = config();
    for pod in good.pods.values_mut() {
        pod.subnets = nets(16);
    }
    assert!(good.faults(|_| false).is_empty());
}

#[test]
fn subnets_are_read_as_they_are_shown() {
    let read = |texts: &[&str]| read_subnets(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(read(&["10.45.0.0/16", "198.51.100.7/32"]).unwrap().len(), 2);
    for bad in [
        "10.45.0.0",
        "10.45.0.0/33",
        "10.45.0.0/016",
        "10.45.0.1/16",
        "fd00::/64",
        "",
        " 10.45.0.0/16",
    ] {
        assert!(read(&[bad]).is_err(), "{bad}");
    }
}
