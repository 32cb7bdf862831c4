//! DNS for pods: `gateway:53`, UDP and TCP. Names of the cluster come from the configuration, others from the host's servers.

mod allow;
mod answer;
mod places;
mod server;
mod socket;
mod table;
mod upstream;

pub(super) use allow::Rate;
pub(super) use server::{Bounds, Server};
pub(super) use table::Table;
