//! What it tells over HTTP: metrics, readiness and the attached devices to everybody, and on the loopback what is ordered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use gantry_lab_daemon::{Metrics, Ready};
use tokio::sync::mpsc;

use crate::carry::Counts;
use crate::shell::{Shared, devices, lock};
use crate::tunnels::DropReason;

/// `/metrics`, `/healthz`, and `/devices` as in the file.
pub fn pages(cell: &Shared, counts: Arc<Counts>) -> Router {
    let (shown, asked, told) = (cell.clone(), cell.clone(), cell.clone());
    gantry_lab_daemon::pages(move |page| metrics(&shown, &counts, page), move || ready(&asked))
        .route("/devices", get(move || std::future::ready(devices(&lock(&told)))))
}

/// Orders: a device is idle from now on, until it has a packet or is called.
pub fn control(rest: mpsc::Sender<String>) -> Router {
    Router::new().route("/idle/{imsi}", post(idle)).with_state(rest)
}

async fn idle(State(rest): State<mpsc::Sender<String>>, Path(imsi): Path<String>) -> StatusCode {
    match rest.try_send(imsi) {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// All devices are attached.
fn ready(cell: &Shared) -> Ready {
    let cell = lock(cell);
    let attached = cell.attached().count();
    if attached < cell.len() {
        return Err(format!("{attached} of {} devices are attached", cell.len()));
    }
    Ok(())
}

fn metrics(cell: &Shared, carried: &Counts, page: &mut Metrics) {
    let cell = lock(cell);
    let counts = cell.counts();
    page.value("enb_devices", cell.len());
    page.value("enb_attached", cell.attached().count());
    page.value("enb_attaches_total", counts.attaches);
    page.value("enb_attached_total", counts.attached);
    for (cause, count) in &counts.failures {
        page.labelled("enb_attach_failures_total", ("cause", cause), count);
    }
    page.value("enb_services_total", counts.services);
    page.value("enb_pages_total", counts.pages);
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    page.labelled("enb_packets_total", ("way", "up"), load(&carried.up));
    page.labelled("enb_packets_total", ("way", "down"), load(&carried.down));
    page.labelled("enb_fragments_total", ("way", "up"), load(&carried.fragments_up));
    page.labelled(
        "enb_fragments_total",
        ("way", "down"),
        load(&carried.fragments_down),
    );
    page.value("enb_faults_total", load(&carried.injected));
    for (reason, count) in DropReason::ALL.into_iter().zip(&carried.dropped) {
        page.labelled("enb_dropped_total", ("reason", reason.word()), load(count));
    }
}
