//! `gantry get`: network functions at a glance, by service and plane.

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::Output;
use crate::client::Client;
use crate::functions::{self, Function};
use crate::output::{self, colour, table};
use crate::pod_table;

pub async fn get(client: &Client, names: &[String], output: Output) -> Result<()> {
    let functions = functions::load(client, names).await?;
    let value: Vec<Value> = functions.iter().map(value).collect();
    output::print(output, &value, || text(&functions, output == Output::Wide))
}

fn value(function: &Function) -> Value {
    json!({
        "service": function.service,
        "plane": function.plane(),
        "function": function.object,
        "pods": function.pods,
    })
}

fn text(functions: &[Function], wide: bool) -> String {
    let rows = functions::grouped(functions).map(|([service, plane], function)| {
        let (spec, status) = (&function.object.spec, &function.object.status);
        let is_ready = status.ready_replicas == spec.replicas && status.message.is_empty();
        [
            service,
            plane,
            function.name.clone(),
            function.role().to_owned(),
            format!("{}-{}", spec.package, spec.version),
            colour(&function.ready(), is_ready),
            pod_table::restarts(&function.pods).to_string(),
            status.message.clone(),
        ]
    });
    let headings = [
        "SERVICE", "PLANE", "FUNCTION", "ROLE", "PACKAGE", "READY", "RESTARTS", "MESSAGE",
    ];
    let mut text = table(headings, rows);
    if wide {
        let pods = functions.iter().flat_map(|f| f.pods.iter().cloned());
        let pods: Vec<_> = pods.collect();
        text += &format!("\n{}", pod_table::render(&pods, &[], true));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_once() {
        let text = text(&functions::tests::some(), false);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            lines[2],
            ["core", "signalling", "hss", "HSS", "hss-1.0.0", "1/1", "0"]
        );
        assert_eq!(lines[3], ["mme", "MME", "mme-1.0.0", "1/1", "0"]);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
