//! The cases, by theme.

mod connections;
mod disk;
mod floods;
mod logs;
mod memory;
mod network;
mod objects;
mod pods;
mod probes;
mod processes;
mod requests;
mod security;
mod services;
mod streams;
mod templates;

use super::{Case, Harm, Process, Tenant};

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [
        requests::CASES,
        connections::CASES,
        streams::CASES,
        floods::CASES,
        templates::CASES,
        objects::CASES,
        services::CASES,
        security::CASES,
        disk::CASES,
        logs::CASES,
        processes::CASES,
        memory::CASES,
        probes::CASES,
        network::CASES,
    ]
    .concat()
}
