//! DNS for pods: `gateway:53`, UDP and TCP. Names of the cluster come from the configuration, others from the host's servers.

mod server;
mod table;

pub(super) use server::Server;
pub(super) use table::Table;
