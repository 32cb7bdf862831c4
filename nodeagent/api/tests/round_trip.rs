//! Whatever the model can say comes back the same from the wire.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use gantry_nodeagent_api::*;
use gantry_topology::CpuSet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9./ü-]{0,12}"
}

fn cpus() -> impl Strategy<Value = CpuSet> {
    btree_set(0..256u32, 0..12).prop_map(|ids| ids.into_iter().collect())
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from)
}

fn port() -> impl Strategy<Value = u16> {
    any::<u16>()
}

fn resources() -> impl Strategy<Value = ContainerResources> {
    (
        cpus(),
        any::<u32>(),
        any::<Option<u32>>(),
        any::<u64>(),
        btree_map(any::<u64>(), any::<u64>(), 0..3),
    )
        .prop_map(
            |(cpus, cpu_request_milli, cpu_limit_milli, memory_bytes, hugepages)| ContainerResources {
                cpus,
                cpu_request_milli,
                cpu_limit_milli,
                memory_bytes,
                hugepages,
            },
        )
}

fn http_get() -> impl Strategy<Value = HttpGet> {
    let headers = vec((text(), text()), 0..3);
    (port(), text(), headers).prop_map(|(port, path, headers)| HttpGet { port, path, headers })
}

fn hook() -> impl Strategy<Value = Hook> {
    prop_oneof![
        http_get().prop_map(Hook::HttpGet),
        vec(text(), 0..3).prop_map(|command| Hook::Exec { command }),
        any::<u32>().prop_map(|seconds| Hook::Sleep { seconds }),
        any::<u32>().prop_map(|signal| Hook::Signal { signal }),
    ]
}

fn probe() -> impl Strategy<Value = Probe> {
    let action = prop_oneof![
        http_get().prop_map(ProbeAction::HttpGet),
        port().prop_map(|port| ProbeAction::TcpSocket { port }),
        vec(text(), 0..3).prop_map(|command| ProbeAction::Exec { command }),
    ];
    (action, any::<(u64, u64, u64, u32, u32, Option<u32>)>()).prop_map(|(action, (a, b, c, d, e, f))| Probe {
        action,
        initial_delay_ms: a,
        period_ms: b,
        timeout_ms: c,
        failure_threshold: d,
        success_threshold: e,
        termination_grace_s: f,
    })
}

fn security() -> impl Strategy<Value = Security> {
    let ids = any::<(Option<u32>, Option<u32>)>();
    let switches = any::<(bool, bool, bool, bool)>();
    let seccomp = prop_oneof![
        Just(Seccomp::RuntimeDefault),
        Just(Seccomp::Unconfined),
        text().prop_map(Seccomp::Localhost)
    ];
    (
        ids,
        switches,
        vec(text(), 0..3),
        vec(text(), 0..3),
        seccomp,
        option::of(text()),
    )
        .prop_map(
            |(ids, switches, capabilities, root_capabilities, seccomp, apparmor_profile)| Security {
                user: ids.0,
                group: ids.1,
                capabilities,
                root_capabilities,
                privileged: switches.0,
                read_only_root: switches.1,
                allow_privilege_escalation: switches.2,
                run_as_non_root: switches.3,
                seccomp,
                apparmor_profile,
            },
        )
}

fn pod_security() -> impl Strategy<Value = PodSecurity> {
    let ids = (vec(any::<u32>(), 0..3), any::<bool>(), any::<Option<u32>>());
    (ids, btree_map(text(), text(), 0..3), any::<bool>()).prop_map(
        |((supplemental_groups, strict_groups, fs_group), sysctls, own_ids)| PodSecurity {
            supplemental_groups,
            strict_groups,
            fs_group,
            sysctls,
            own_ids,
        },
    )
}

fn container() -> impl Strategy<Value = ContainerConfig> {
    let mount = (text(), text(), option::of(text()), any::<bool>()).prop_map(
        |(volume, path, sub_path, read_only)| Mount {
            volume,
            path,
            sub_path,
            read_only,
        },
    );
    let role = prop_oneof![
        Just(ContainerRole::Main),
        Just(ContainerRole::Init),
        Just(ContainerRole::Sidecar)
    ];
    (
        (
            text(),
            text(),
            vec(text(), 0..3),
            vec(text(), 0..3),
            vec((text(), text()), 0..3),
            text(),
        ),
        (
            (resources(), any::<(u64, u64, u64)>()),
            vec(mount, 0..3),
            security(),
            any::<Option<u64>>(),
        ),
        (
            option::of(probe()),
            option::of(probe()),
            option::of(probe()),
            role,
            option::of(hook()),
            (option::of(hook()), option::of(hook())),
            (text(), any::<bool>()),
        ),
    )
        .prop_map(
            |(
                (name, image, command, args, env, working_dir),
                (
                    (resources, (memory_request_bytes, request_bytes, limit_bytes)),
                    mounts,
                    security,
                    open_files,
                ),
                (readiness, liveness, startup, role, post_start, (pre_stop, reload), (path, from_log)),
            )| ContainerConfig {
                name,
                image,
                command,
                args,
                env,
                working_dir,
                resources,
                memory_request_bytes,
                ephemeral_storage: EphemeralStorage {
                    request_bytes,
                    limit_bytes,
                },
                mounts,
                security,
                open_files,
                readiness,
                liveness,
                startup,
                role,
                post_start,
                pre_stop,
                reload,
                termination_message: TerminationMessage { path, from_log },
            },
        )
}

fn file() -> impl Strategy<Value = VolumeFile> {
    (vec(any::<u8>(), 0..9), 0..0o1000u32).prop_map(|(data, mode)| VolumeFile { data, mode })
}

fn names() -> impl Strategy<Value = PodNames> {
    let policy = prop_oneof![
        Just(DnsPolicy::Cluster),
        Just(DnsPolicy::Node),
        Just(DnsPolicy::None)
    ];
    (text(), v4(), policy).prop_map(|(name, address, dns_policy)| PodNames {
        hostname: name.clone(),
        fqdn: name.clone(),
        aliases: vec![HostAlias {
            address: address.into(),
            names: vec![name.clone()],
        }],
        dns_policy,
        nameservers: vec![address.into()],
        searches: vec![name.clone()],
        options: vec![name],
    })
}

fn host_path_type() -> impl Strategy<Value = HostPathType> {
    use HostPathType::*;
    prop_oneof![
        Just(Any),
        Just(Directory),
        Just(DirectoryOrCreate),
        Just(File),
        Just(FileOrCreate),
        Just(Socket),
        Just(CharDevice),
        Just(BlockDevice)
    ]
}

fn volume() -> impl Strategy<Value = Volume> {
    prop_oneof![
        btree_map(text(), file(), 0..3).prop_map(Volume::Files),
        btree_map(text(), file(), 0..3).prop_map(Volume::SecretFiles),
        any::<u64>().prop_map(|size_bytes| Volume::Scratch { size_bytes }),
        any::<u64>().prop_map(|limit_bytes| Volume::EmptyDir { limit_bytes }),
        (text(), any::<bool>()).prop_map(|(id, read_only)| Volume::Claim { id, read_only }),
        (text(), host_path_type()).prop_map(|(path, kind)| Volume::HostPath { path, kind }),
    ]
}

fn pod() -> impl Strategy<Value = PodConfig> {
    let desired = prop_oneof![
        Just(PodDesired::Run),
        Just(PodDesired::Stop),
        Just(PodDesired::Keep)
    ];
    let policy = prop_oneof![
        Just(RestartPolicy::Always),
        Just(RestartPolicy::OnFailure),
        Just(RestartPolicy::Never)
    ];
    let qos = prop_oneof![
        Just(QosClass::Guaranteed),
        Just(QosClass::Burstable),
        Just(QosClass::BestEffort)
    ];
    let sessions =
        (port(), text(), text()).prop_map(|(port, path, metric)| SessionProbe { port, path, metric });
    (
        (
            text(),
            text(),
            text(),
            btree_map(text(), text(), 0..3),
            desired,
            option::of(v4()),
            any::<bool>(),
            policy,
        ),
        (any::<u32>(), vec(any::<u32>(), 0..3), vec(container(), 0..3)),
        (
            btree_map(text(), volume(), 0..3),
            option::of(sessions),
            (any::<Option<u64>>(), pod_security()),
            (names(), qos, vec(subnet(), 0..3)),
        ),
    )
        .prop_map(
            |(
                (namespace, name, requester, labels, desired, address, host_network, restart_policy),
                (termination_grace_s, numa_nodes, containers),
                (volumes, sessions, (deadline_ms, security), (names, qos, subnets)),
            )| PodConfig {
                names,
                namespace,
                name,
                requester,
                labels,
                desired,
                address,
                host_network,
                restart_policy,
                termination_grace_s,
                numa_nodes,
                containers,
                volumes,
                security,
                sessions,
                deadline_ms,
                qos,
                subnets,
            },
        )
}

fn subnet() -> impl Strategy<Value = ipnet::Ipv4Net> {
    (v4(), 0u8..=32).prop_map(|(address, length)| ipnet::Ipv4Net::new(address, length).unwrap())
}

fn service() -> impl Strategy<Value = ServiceConfig> {
    let backend = (text(), v4(), port(), any::<u32>(), any::<bool>(), 1..u32::MAX).prop_map(
        |(pod, address, port, weight, draining, udp_idle_s)| Backend {
            pod,
            address,
            port,
            weight,
            draining,
            udp_idle_s,
        },
    );
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let ports = (port(), protocol, vec(backend, 0..3)).prop_map(|(port, protocol, backends)| ServicePort {
        port,
        protocol,
        backends,
    });
    (v4(), vec(ports, 0..3)).prop_map(|(vip, ports)| ServiceConfig { vip, ports })
}

fn config() -> impl Strategy<Value = NodeConfig> {
    let network =
        (v4(), 0..=32u8, v4(), v4(), text()).prop_map(|(a, len, b, gateway, cluster_domain)| NodeNetwork {
            pod_cidr: ipnet::Ipv4Net::new(a, len).unwrap(),
            service_cidr: ipnet::Ipv4Net::new(b, len).unwrap(),
            gateway,
            cluster_domain,
        });
    let dns = btree_map(text(), vec(any::<IpAddr>(), 0..3), 0..3);
    let target = (text(), port()).prop_map(|(name, port)| SrvTarget { name, port });
    let srv = btree_map(text(), vec(target, 0..3), 0..3);
    let claim = (text(), text(), any::<u64>()).prop_map(|(namespace, name, size_bytes)| ClaimConfig {
        namespace,
        name,
        size_bytes,
    });
    let claims = option::of(btree_map(text(), claim, 0..3));
    (
        any::<u64>(),
        option::of(network),
        cpus(),
        btree_map(text(), pod(), 0..3),
        btree_map(text(), service(), 0..3),
        (dns, srv, claims),
    )
        .prop_map(
            |(generation, network, shared_cpus, pods, services, (dns, srv, claims))| NodeConfig {
                generation: Generation(generation),
                network,
                shared_cpus,
                pods,
                services,
                dns,
                cluster: "c".to_owned(),
                srv,
                claims,
            },
        )
}

fn run_end() -> impl Strategy<Value = RunEnd> {
    let reason = prop_oneof![
        Just(EndReason::Completed),
        Just(EndReason::Error),
        Just(EndReason::OomKilled),
        Just(EndReason::StartError)
    ];
    let numbers = any::<(u32, i32, Option<i32>, u64, u64)>();
    (numbers, reason, text()).prop_map(
        |((attempt, exit_code, signal, started_at_ms, finished_at_ms), reason, message)| RunEnd {
            attempt,
            exit_code,
            signal,
            reason,
            message,
            started_at_ms,
            finished_at_ms,
        },
    )
}

fn waiting() -> impl Strategy<Value = WaitingReason> {
    prop_oneof![
        Just(WaitingReason::ContainerCreating),
        Just(WaitingReason::PodInitializing),
        Just(WaitingReason::CrashLoopBackOff),
        Just(WaitingReason::ErrImagePull),
        Just(WaitingReason::ImagePullBackOff),
        Just(WaitingReason::CreateContainerConfigError),
        Just(WaitingReason::CreateContainerError)
    ]
}

fn container_status() -> impl Strategy<Value = ContainerStatus> {
    (
        text(),
        any::<(bool, bool, u32, Option<u32>, u64)>(),
        text(),
        resources(),
        text(),
        (
            option::of(waiting()),
            option::of(run_end()),
            option::of(run_end()),
            prop_oneof![
                Just(Readiness::Unknown),
                Just(Readiness::Passed),
                Just(Readiness::Failed),
            ],
            any::<bool>(),
        ),
    )
        .prop_map(
            |(
                name,
                (running, ready, restarts, pid, started_at_ms),
                image_id,
                resources,
                message,
                (waiting, ended, last_ended, readiness, started),
            )| {
                ContainerStatus {
                    readiness,
                    limits_message: "in use".to_owned(),
                    limits_wait: "waits for CPUs 1".to_owned(),
                    name,
                    running,
                    ready,
                    restarts,
                    pid,
                    started_at_ms,
                    started,
                    waiting,
                    ended,
                    last_ended,
                    image_id,
                    resources,
                    message,
                }
            },
        )
}

fn status() -> impl Strategy<Value = NodeStatus> {
    let phase = prop_oneof![
        Just(PodPhase::Pending),
        Just(PodPhase::Running),
        Just(PodPhase::Stopping),
        Just(PodPhase::Succeeded),
        Just(PodPhase::Failed),
    ];
    let pod = (
        phase,
        cpus(),
        option::of(v4()),
        vec(container_status(), 0..3),
        any::<(bool, u64, u64, Option<u64>)>(),
        text(),
        option::of(prop_oneof![
            Just(PodReason::DeadlineExceeded),
            Just(PodReason::Evicted)
        ]),
        btree_map(proptest::sample::select(Trouble::ALL.to_vec()), text(), 0..3),
    )
        .prop_map(
            |(
                phase,
                cpus,
                address,
                containers,
                (ready, memory_bytes, started_at_ms, sessions),
                message,
                reason,
                troubles,
            )| {
                PodStatus {
                    phase,
                    ready,
                    cpus,
                    memory_bytes,
                    address,
                    started_at_ms,
                    containers,
                    sessions,
                    message,
                    reason,
                    troubles,
                }
            },
        );
    let counters = || btree_map(text(), any::<u64>(), 0..3);
    let reason = prop_oneof![
        Just(ServiceFaultReason::PortConflict),
        Just(ServiceFaultReason::SctpPortChange),
        Just(ServiceFaultReason::TablesFull),
    ];
    let fault = (reason, text()).prop_map(|(reason, message)| ServiceFault { reason, message });
    (
        any::<(u64, u64, u64, u64)>(),
        btree_map(text(), pod, 0..3),
        counters(),
        counters(),
        text(),
        btree_map(text(), fault, 0..3),
        btree_map(text(), any::<u64>(), 0..3),
    )
        .prop_map(
            |(
                (accepted, applied, served, packets),
                pods,
                drops,
                new_flows,
                network_message,
                services,
                full_claims,
            )| {
                NodeStatus {
                    full_claims,
                    accepted: Generation(accepted),
                    applied: Generation(applied),
                    served: Generation(served),
                    pods,
                    network: NetworkCounters {
                        packets,
                        drops,
                        new_flows,
                    },
                    disk_pressure: network_message.clone(),
                    network_message,
                    services,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn configurations_survive_the_wire(config in config()) {
        let message = OrchestratorMessage::Config(config);
        let bytes = proto::OrchestratorMessage::from(&message).encode_to_vec();
        let back = proto::OrchestratorMessage::decode(&bytes[..]).unwrap();
        prop_assert_eq!(OrchestratorMessage::try_from(back).unwrap(), message);
    }

    #[test]
    fn a_pod_takes_no_more_room_than_it_says(pod in pod()) {
        let bytes = proto::PodConfig::from(&pod).encode_to_vec();
        prop_assert!(bytes.len() <= pod.size_bytes(), "{} of {}", bytes.len(), pod.size_bytes());
    }

    #[test]
    fn statuses_survive_the_wire(status in status()) {
        let message = AgentMessage::Status(status);
        let bytes = proto::AgentMessage::from(&message).encode_to_vec();
        let back = proto::AgentMessage::decode(&bytes[..]).unwrap();
        prop_assert_eq!(AgentMessage::try_from(back).unwrap(), message);
    }

    #[test]
    fn bytes_that_are_no_message_are_errors_not_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = proto::OrchestratorMessage::decode(&bytes[..]) {
            let _ = OrchestratorMessage::try_from(message);
        }
    }
}

#[test]
fn an_error_names_the_field() {
    let mut config = NodeConfig::default();
    let containers = vec![ContainerConfig {
        name: "c".to_owned(),
        ..ContainerConfig::default()
    }];
    config.pods.insert(
        "u1".to_owned(),
        PodConfig {
            containers,
            ..PodConfig::default()
        },
    );
    let mut wire = proto::NodeConfig::from(&config);
    wire.pods.get_mut("u1").unwrap().containers[0]
        .resources
        .as_mut()
        .unwrap()
        .cpus = "7-".to_owned();
    let error = NodeConfig::try_from(wire).unwrap_err().to_string();
    assert!(
        error.starts_with("pods[u1].containers[0].resources.cpus: `7-`"),
        "{error}"
    );
}

#[test]
fn hello_and_sessions_survive_the_wire() {
    let hello = AgentMessage::Hello(Hello {
        node: "n1".to_owned(),
        boot_id: "b".to_owned(),
        agent_version: "0".to_owned(),
        kernel_version: "6".to_owned(),
        address: "::1".parse().unwrap(),
        topology: gantry_topology::Topology {
            cpus: vec![gantry_topology::Cpu {
                id: 1,
                core: 2,
                l3: 3,
                numa: 4,
                socket: 5,
            }],
            numa_nodes: vec![gantry_topology::NumaNode {
                id: 0,
                memory_bytes: 1,
                hugepages: BTreeMap::from([(2 << 20, 8)]),
                distances: BTreeMap::from([(0, 10), (1, 21)]),
            }],
        },
        reserved: "0".parse().unwrap(),
        reserved_memory_bytes: 5,
        storage: NodeStorage {
            bytes: 7,
            reserved_bytes: 3,
        },
        generation: Generation(9),
        cluster: String::new(),
    });
    assert_eq!(
        AgentMessage::try_from(proto::AgentMessage::from(&hello)).unwrap(),
        hello
    );
    for frame in [
        SessionFrame::Open("x".to_owned()),
        SessionFrame::Stdin("in".into()),
        SessionFrame::StdinEof,
        SessionFrame::Stdout("out".into()),
        SessionFrame::Resize {
            columns: 80,
            rows: 25,
        },
        SessionFrame::Error("e".to_owned()),
        SessionFrame::Exit(137),
    ] {
        assert_eq!(
            SessionFrame::try_from(proto::SessionFrame::from(frame.clone())).unwrap(),
            frame
        );
    }
}

#[test]
fn a_sender_that_does_not_know_how_long_flows_may_be_silent_gets_the_default() {
    let old = proto::ServicePort {
        port: 5060,
        protocol: proto::Protocol::Udp.into(),
        backends: vec![proto::Backend {
            address: "10.85.0.2".to_owned(),
            port: 5060,
            ..Default::default()
        }],
    };
    let read = ServicePort::try_from(old).unwrap();
    assert_eq!(read.backends[0].udp_idle_s, DEFAULT_UDP_IDLE_S);
}
