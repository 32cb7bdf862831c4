//! Starting the controllers beside the API server: the shell over the pure core, and its planner for what-if questions.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiError, Planning};
use crate::core::Settings;
use crate::server::{self, Controllers, Parts, ServerConfig, ServerError};
use crate::shell::{Planner, Shell};

/// Plans of the same state come out the same on every machine.
const SEED: u64 = 0;

/// The whole orchestrator, until the token is cancelled.
pub async fn run(config: ServerConfig, shutdown: CancellationToken) -> Result<(), ServerError> {
    server::serve(config, shutdown, start).await
}

/// Starts the controllers over the parts of a server.
pub async fn start(parts: Parts) -> Result<Controllers, ServerError> {
    let settings = Settings {
        pod_cidr: parts.config.pod_cidr,
        service_cidr: parts.config.service_cidr,
        cluster_domain: parts.config.cluster_domain,
        seed: SEED,
        cluster: parts.cluster,
    };
    let store = parts.objects.store().clone();
    let (limits, renderer) = (parts.config.core_limits, parts.config.renderer);
    let mut shell = Shell::open(store, parts.link, parts.events, settings, renderer)
        .await?
        .with_limits(limits);
    shell.pass().await;
    let planning = Arc::new(WhatIf(shell.planner()));
    let shutdown = parts.shutdown;
    let runtime = Handle::current();
    // Decisions take as long as they take: on a thread of their own, behind which no answer waits.
    let task = tokio::task::spawn_blocking(move || {
        // Without controllers nothing is decided any more: however they end, a panic included, the orchestrator ends, and
        // whoever supervises it starts it again.
        let _end = shutdown.clone().drop_guard();
        if let Err(error) = runtime.block_on(shell.run(shutdown.clone())) {
            tracing::error!(%error, "the controllers cannot go on; the orchestrator stops");
        }
    });
    Ok(Controllers { planning, task })
}

/// The shell's planner behind the API.
struct WhatIf(Planner);

#[async_trait]
impl Planning for WhatIf {
    async fn dry_run(&self, objects: Vec<Value>) -> Result<Value, ApiError> {
        // Templates are rendered on the way.
        let planner = self.0.clone();
        tokio::task::spawn_blocking(move || planner.dry_run(&objects))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|error| ApiError::bad_request(error.to_string()))
    }

    async fn explain(&self, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let (planner, namespace, name) = (self.0.clone(), namespace.to_owned(), name.to_owned());
        tokio::task::spawn_blocking(move || planner.explain(&namespace, &name))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))
    }
}
