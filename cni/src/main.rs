//! `gantry-cni`: a CNI plugin (specification 0.4.0 to 1.1.0) that wires pods to the node's eBPF datapath.
//!
//! One process per command; everything it must remember is in files and in the kernel.

mod add;
mod check;
mod config;
mod crash;
mod del;
mod environment;
mod error;
mod host;
mod names;
mod netlink;
mod pod;
mod purge;
mod result;
mod store;
mod sysctl;
mod tracking;

use std::io::Read;
use std::process::ExitCode;

use config::{Config, RawConfig, VERSIONS};
use environment::{Target, netns, required};
use error::CniError;
use serde_json::{Value, json};

fn main() -> ExitCode {
    let input = match read_stdin() {
        Ok(input) => input,
        Err(e) => return fail(&e, VERSIONS[0]),
    };
    match run(&input) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(e) => fail(&e, &version_of(&input)),
    }
}

fn read_stdin() -> Result<Vec<u8>, CniError> {
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .map_err(error::file("read", "standard input"))?;
    Ok(input)
}

fn fail(error: &CniError, version: &str) -> ExitCode {
    let report = serde_json::to_string(&error.report(version)).expect("plain strings");
    println!("{report}");
    ExitCode::FAILURE
}

/// The version to answer in: the request's if we speak it.
fn version_of(input: &[u8]) -> String {
    let asked: Value = serde_json::from_slice(input).unwrap_or_default();
    let asked = asked["cniVersion"].as_str().unwrap_or_default();
    let known = VERSIONS.iter().find(|v| **v == asked);
    (*known.unwrap_or(&VERSIONS[VERSIONS.len() - 1])).to_owned()
}

fn run(input: &[u8]) -> Result<Option<Value>, CniError> {
    match std::env::args().nth(1).as_deref() {
        Some("host") => return purge::host_up(&decode(input)?).map(|()| None),
        Some("purge") => return purge::purge(&decode(input)?).map(|()| None),
        Some(other) => {
            let problem = format!("{other:?} is no sub-command: host, purge, or none and CNI_COMMAND set");
            return Err(CniError::Environment {
                variable: "argv",
                problem,
            });
        }
        None => {}
    }
    let command = required("CNI_COMMAND")?;
    match command.as_str() {
        "ADD" => add::add(&decode(input)?, &Target::from_environment()?, &netns()?).map(Some),
        "CHECK" => check::check(&decode(input)?, &Target::from_environment()?, &netns()?).map(|()| None),
        // CNI_NETNS may be empty or gone: nothing in it is needed.
        "DEL" => del::del(&decode(input)?, &Target::from_environment()?).map(|()| None),
        "GC" => {
            let config = decode(input)?;
            let problem = || "is missing".to_owned();
            let field = "cni.dev/valid-attachments";
            let valid = config.valid_attachments.as_ref();
            let valid = valid.ok_or_else(|| CniError::Config {
                field,
                problem: problem(),
            })?;
            del::gc(&config, valid).map(|()| None)
        }
        "STATUS" => status(&decode(input)?).map(|()| None),
        "VERSION" => Ok(Some(
            json!({"cniVersion": version_of(input), "supportedVersions": VERSIONS}),
        )),
        other => Err(CniError::Environment {
            variable: "CNI_COMMAND",
            problem: format!("is {other:?}"),
        }),
    }
}

fn decode(input: &[u8]) -> Result<Config, CniError> {
    let raw: RawConfig = serde_json::from_slice(input).map_err(CniError::Decode)?;
    raw.validate()
}

fn status(_config: &Config) -> Result<(), CniError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(CniError::NotAvailable("the plugin must run as root".into()));
    }
    if !host::has_nft() {
        return Err(CniError::NotAvailable(
            "there is no nft: install the nftables package".into(),
        ));
    }
    Ok(())
}
