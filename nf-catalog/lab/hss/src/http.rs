//! What it tells over HTTP: metrics to everybody, and on the loopback what an operator orders.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use gantry_lab_daemon::Metrics;
use gantry_lab_diameter::{Message, Node};

use crate::cx;
use crate::hss::Hss;

type Shared = State<Node<Hss>>;

/// `/metrics` and `/healthz`.
pub fn pages(node: Node<Hss>) -> Router {
    gantry_lab_daemon::pages(move |page| metrics(&node, page), || Ok(()))
}

/// Orders.
pub fn control(node: Node<Hss>) -> Router {
    Router::new()
        .route("/release/{user}", post(release))
        .with_state(node)
}

fn metrics(node: &Node<Hss>, page: &mut Metrics) {
    let hss = node.service();
    let (registered, attached) = {
        let registry = hss.registry();
        (registry.registered(), registry.attached())
    };
    page.value("hss_subscribers", hss.users().len());
    page.value("hss_registered", registered);
    page.value("hss_attached", attached);
    page.value("hss_peers", node.connected().len());
    for (name, count) in hss.counts() {
        let all = [
            ("hss_requests_total", &count.asked),
            ("hss_refused_total", &count.refused),
        ];
        for (metric, value) in all {
            page.labelled(metric, ("command", name), value.load(Ordering::Relaxed));
        }
    }
}

/// Ends a user's registration at its S-CSCF, so that the next one may go to another.
async fn release(State(node): Shared, Path(user): Path<String>) -> (StatusCode, String) {
    let hss = node.service();
    let Some(nth) = hss.users().by_private(&user) else {
        return (StatusCode::NOT_FOUND, format!("there is no subscriber {user}\n"));
    };
    let released = hss.registry().release(nth);
    let Some((host, record)) = released else {
        return (StatusCode::CONFLICT, format!("no S-CSCF serves {user}\n"));
    };
    if let Err(error) = hss.disk().keep(&hss.users().get(nth).imsi, &record).await {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    }
    let request: Message = cx::registration_termination(hss, nth, &host);
    match node.request(request).await {
        Ok(answer) => (StatusCode::OK, format!("{host} answered {:?}\n", answer.result())),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{host}: {error}\n")),
    }
}
