//! What it tells over HTTP: metrics and readiness to everybody, and on the loopback what an operator orders.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use gantry_lab_daemon::{Metrics, Ready};

use crate::mme::Mme;

/// `/metrics` and `/healthz`.
pub fn pages(mme: &Arc<Mme>) -> Router {
    let (shown, asked) = (mme.clone(), mme.clone());
    gantry_lab_daemon::pages(move |page| metrics(&shown, page), move || ready(&asked))
}

/// Orders.
pub fn control(mme: Arc<Mme>) -> Router {
    Router::new()
        .route("/detach/{imsi}", post(detach))
        .route("/reattach/{imsi}", post(reattach))
        .route("/reattach", post(reattach_all))
        .with_state(mme)
}

/// S6a is open. The SGW is not asked: an Echo costs nextepc's a buffer, for good.
fn ready(mme: &Mme) -> Ready {
    if mme.node.connected().is_empty() {
        return Err("no HSS and no relay is connected".to_owned());
    }
    Ok(())
}

fn metrics(mme: &Mme, page: &mut Metrics) {
    let counts = &mme.counts;
    let s11 = mme.s11.counts();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    page.value("mme_attached", load(&counts.attached));
    page.value("mme_enbs", load(&counts.enbs));
    page.value("mme_peers", mme.node.connected().len());
    page.value("mme_attaches_total", load(&counts.attaches));
    for (cause, count) in counts.attach_failures.all() {
        page.labelled("mme_attach_failures_total", ("cause", cause), count);
    }
    for (cause, count) in counts.other_failures.all() {
        page.labelled("mme_other_failures_total", ("cause", cause), count);
    }
    let s6a = [
        ("AIR", load(&counts.authentication_requests)),
        ("ULR", load(&counts.location_requests)),
    ];
    for (command, count) in s6a {
        page.labelled("mme_s6a_requests_total", ("command", command), count);
    }
    page.value("mme_s11_requests_total", s11.requests);
    page.value("mme_s11_retransmissions_total", s11.retransmissions);
    page.value("mme_s11_unanswered_total", s11.unanswered);
    page.value("mme_s11_stray_answers_total", s11.stray);
    page.value("mme_downlink_notifications_total", load(&counts.notifications));
    page.value("mme_pages_total", load(&counts.pages));
    page.value("mme_bearers_refused_total", load(&counts.bearers_refused));
}

async fn detach(State(mme): State<Arc<Mme>>, Path(imsi): Path<String>) -> (StatusCode, String) {
    order(&mme, &imsi, false).await
}

async fn reattach(State(mme): State<Arc<Mme>>, Path(imsi): Path<String>) -> (StatusCode, String) {
    order(&mme, &imsi, true).await
}

async fn order(mme: &Mme, imsi: &str, reattach: bool) -> (StatusCode, String) {
    match mme.order_out(imsi, reattach).await {
        Ok(()) => (StatusCode::OK, format!("{imsi} is detached\n")),
        Err(cause) => (StatusCode::CONFLICT, format!("{imsi}: {}\n", cause.word())),
    }
}

/// All devices, one after the other.
async fn reattach_all(State(mme): State<Arc<Mme>>) -> String {
    let mut ordered = 0;
    for device in mme.devices.all() {
        let imsi = device.lock().await.imsi.clone();
        ordered += u32::from(mme.order_out(&imsi, true).await.is_ok());
    }
    format!("{ordered} devices are detached\n")
}
