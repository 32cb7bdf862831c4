//! `gantry top`: what functions take and do, measured between two looks.

mod page;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt;
use futures::stream;
use gantry_nodeagent_api::{NodeMetrics, PodMetrics};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use crate::args::{Output, TopArgs};
use crate::client::Client;
use crate::functions::{self, Function};
use crate::output::{self, Progress, table};

/// Nodes and pods that are asked at the same time.
const AT_ONCE: usize = 16;
/// What a cell shows that nobody tells.
const UNKNOWN: &str = "-";

/// `gantry top`.
pub async fn top(client: &Client, args: &TopArgs, output: Output) -> Result<()> {
    let functions = functions::load(client, &args.names).await?;
    let progress = Progress::new(&format!("measuring for {} s", args.interval));
    let before = Look::take(client, &functions).await;
    tokio::time::sleep(Duration::from_secs(args.interval.into())).await;
    let now = Look::take(client, &functions).await;
    drop(progress);
    for problem in &now.problems {
        gantry_log::say(problem);
    }
    let load = |pod: &Pod| Load::of(pod, &before, &now);
    if output == Output::Wide {
        return output::write_out(&wide(&functions, load));
    }
    let of_function = |f: &Function| Load::sum(f.pods.iter().map(load));
    let loads: Vec<Load> = functions.iter().map(of_function).collect();
    let value: Vec<Row<'_>> = functions
        .iter()
        .zip(&loads)
        .map(|(function, load)| Row {
            service: &function.service,
            plane: function.plane(),
            function: &function.name,
            ready: function.object.status.ready_replicas,
            replicas: function.object.spec.replicas,
            load,
        })
        .collect();
    output::print(output, &value, || text(&functions, &loads))
}

/// What all nodes and pods tell at one moment.
#[derive(Default)]
struct Look {
    /// By uid: when by its node's clock, and what.
    usage: BTreeMap<String, (u64, PodMetrics)>,
    /// By uid.
    pages: BTreeMap<String, (Instant, page::Page)>,
    /// Who did not tell, and why.
    problems: Vec<String>,
}

impl Look {
    async fn take(client: &Client, functions: &[Function]) -> Self {
        let pods = functions.iter().flat_map(|f| &f.pods);
        let mut nodes: Vec<&str> = pods
            .filter_map(|p| p.spec.as_ref()?.node_name.as_deref())
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        let (usages, pages) = tokio::join!(usages(client, nodes), pages(client, functions));
        let mut look = Self::default();
        for (node, usage) in usages {
            match usage {
                Ok(NodeMetrics { at_nanos, pods }) => {
                    let told = pods.into_iter().map(|(uid, usage)| (uid, (at_nanos, usage)));
                    look.usage.extend(told);
                }
                Err(error) => look.problems.push(format!("node {node}: {error:#}")),
            }
        }
        for (pod, at, page) in pages {
            match page {
                Ok(page) => drop(look.pages.insert(uid(pod).to_owned(), (at, page))),
                Err(error) => look.problems.push(format!(
                    "pod {}: {error:#}",
                    pod.metadata.name.as_deref().unwrap_or_default()
                )),
            }
        }
        look
    }
}

async fn usages<'a>(client: &Client, nodes: Vec<&'a str>) -> Vec<(&'a str, Result<NodeMetrics>)> {
    let ask = |node| async move { (node, client.get(&format!("/api/v1/nodes/{node}/usage")).await) };
    stream::iter(nodes)
        .map(ask)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

async fn pages<'a>(
    client: &Client,
    functions: &'a [Function],
) -> Vec<(&'a Pod, Instant, Result<page::Page>)> {
    let telling = functions.iter().filter_map(|f| Some((f.metrics()?, &f.pods)));
    let all: Vec<_> = telling
        .flat_map(|(metrics, pods)| pods.iter().map(move |pod| (metrics, pod)))
        // Who is not ready yet has nothing to tell, and need not say why.
        .filter(|(_, pod)| gantry_orchestrator::core::pods::is_ready(pod))
        .collect();
    let ask = |(metrics, pod)| async move { (pod, Instant::now(), page::read(client, pod, metrics).await) };
    stream::iter(all)
        .map(ask)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// What one pod, or all of a function, takes and does. What nobody tells is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    sessions: Option<u64>,
    requests_per_second: Option<f64>,
    packets_per_second: Option<f64>,
    cpu_milli: Option<f64>,
    memory_bytes: Option<u64>,
}

impl Load {
    fn of(pod: &Pod, before: &Look, now: &Look) -> Self {
        let mut load = Self::default();
        if let Some((at, page)) = now.pages.get(uid(pod)) {
            load.sessions = page.sessions;
            let first = before.pages.get(uid(pod));
            load.requests_per_second = first.and_then(|(since, first)| {
                per_second(first.requests?, page.requests?, at.duration_since(*since))
            });
        }
        if let Some((at, usage)) = now.usage.get(uid(pod)) {
            load.memory_bytes = Some(usage.memory_bytes);
            if let Some((since, first)) = before.usage.get(uid(pod)) {
                let time = Duration::from_nanos(at.saturating_sub(*since));
                // Nanoseconds a second are millionths of a thousandth of a CPU.
                let cpu = per_second(first.cpu_nanos, usage.cpu_nanos, time);
                load.cpu_milli = cpu.map(|nanos| nanos / 1e6);
                load.packets_per_second = per_second(packets(first), packets(usage), time);
            }
        }
        load
    }

    fn sum(loads: impl Iterator<Item = Self>) -> Self {
        loads.fold(Self::default(), |all, one| Self {
            sessions: added(all.sessions, one.sessions),
            requests_per_second: added(all.requests_per_second, one.requests_per_second),
            packets_per_second: added(all.packets_per_second, one.packets_per_second),
            cpu_milli: added(all.cpu_milli, one.cpu_milli),
            memory_bytes: added(all.memory_bytes, one.memory_bytes),
        })
    }

    fn cells(&self) -> [String; 5] {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
        [
            or_unknown(self.sessions.map(|n| n.to_string())),
            or_unknown(self.requests_per_second.map(|n| format!("{n:.0}"))),
            or_unknown(self.packets_per_second.map(|n| format!("{n:.0}"))),
            or_unknown(self.cpu_milli.map(|n| format!("{n:.0}m"))),
            or_unknown(self.memory_bytes.map(|n| format!("{}Mi", n >> 20))),
        ]
    }
}

/// What is unknown of one is not counted; unknown of all is unknown.
fn added<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (known, None) | (None, known) => known,
    }
}

/// Of a counter; one that fell began anew in between, and tells nothing.
fn per_second(before: u64, now: u64, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    let grown = now.checked_sub(before).filter(|_| seconds > 0.0)?;
    Some(grown as f64 / seconds)
}

/// In both directions, over all interfaces.
fn packets(usage: &PodMetrics) -> u64 {
    let both = usage
        .interfaces
        .values()
        .map(|t| t.received_packets + t.sent_packets);
    both.sum()
}

#[derive(Serialize)]
struct Row<'a> {
    service: &'a str,
    plane: &'a str,
    function: &'a str,
    ready: u32,
    replicas: u32,
    #[serde(flatten)]
    load: &'a Load,
}

fn text(functions: &[Function], loads: &[Load]) -> String {
    let rows = functions::grouped(functions)
        .zip(loads)
        .map(|(([service, plane], function), load)| {
            let [sessions, requests, packets, cpu, memory] = load.cells();
            let (name, ready) = (function.name.clone(), function.ready());
            [
                service, plane, name, ready, sessions, requests, packets, cpu, memory,
            ]
        });
    let headings = [
        "SERVICE",
        "PLANE",
        "FUNCTION",
        "READY",
        "SESSIONS",
        "REQ/S",
        "PACKETS/S",
        "CPU",
        "MEMORY",
    ];
    table(headings, rows)
}

/// A row for each pod.
fn wide(functions: &[Function], load: impl Fn(&Pod) -> Load) -> String {
    let of_function = |f: &Function| -> Vec<[String; 8]> {
        let row = |pod: &Pod| {
            let [sessions, requests, packets, cpu, memory] = load(pod).cells();
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            [
                f.name.clone(),
                pod.metadata.name.clone().unwrap_or_default(),
                node.unwrap_or_else(|| UNKNOWN.to_owned()),
                sessions,
                requests,
                packets,
                cpu,
                memory,
            ]
        };
        f.pods.iter().map(row).collect()
    };
    let headings = [
        "FUNCTION",
        "POD",
        "NODE",
        "SESSIONS",
        "REQ/S",
        "PACKETS/S",
        "CPU",
        "MEMORY",
    ];
    table(headings, functions.iter().flat_map(of_function))
}

#[cfg(test)]
mod tests {
    use gantry_nodeagent_api::Traffic;

    use super::*;

    fn usage(cpu_nanos: u64, packets: u64) -> PodMetrics {
        let traffic = Traffic {
            received_packets: packets,
            sent_packets: packets,
            ..Traffic::default()
        };
        PodMetrics {
            cpu_nanos,
            memory_bytes: 64 << 20,
            interfaces: BTreeMap::from([("eth0".to_owned(), traffic)]),
        }
    }

    fn looks() -> [Look; 2] {
        let begun = Instant::now();
        [(0, 100), (1, 140)].map(|(second, requests)| {
            let page = page::Page {
                sessions: Some(7),
                requests: Some(requests),
            };
            let at_nanos = second * 2_000_000_000;
            let of = |pod: &str, usage| (pod.to_owned(), (at_nanos, usage));
            Look {
                usage: BTreeMap::from([
                    of("sgw-0", usage(second * 500_000_000, second * 1000)),
                    of("sgw-1", usage(second * 100_000_000, 5 - second)),
                ]),
                pages: BTreeMap::from([(
                    "mme-0".to_owned(),
                    (begun + Duration::from_secs(second * 2), page),
                )]),
                problems: Vec::new(),
            }
        })
    }

    #[test]
    fn loads_are_what_grew_in_between_and_add_up() {
        let (functions, [before, now]) = (functions::tests::some(), looks());
        let load = |f: &Function| Load::sum(f.pods.iter().map(|pod| Load::of(pod, &before, &now)));
        let loads: Vec<Load> = functions.iter().map(load).collect();
        let text = text(&functions, &loads);
        let cells = |line: usize| {
            text.lines()
                .nth(line)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(cells(3), ["mme", "1/1", "7", "20", "-", "-", "-"]);
        // A counter that fell tells nothing; that of the other instance counts.
        assert_eq!(
            cells(4),
            ["data", "sgw", "1/1", "-", "-", "1000", "300m", "128Mi"]
        );
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let wide = wide(&functions, |pod| Load::of(pod, &before, &now));
        assert_eq!(wide.lines().count(), 4, "{wide}");
    }
}
