//! What it tells over HTTP: metrics to everybody, and on the loopback what an operator orders.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use gantry_lab_daemon::Metrics;
use gantry_lab_diameter::{Message, Node};

use crate::hss::Hss;
use crate::identity::Nth;
use crate::{cx, registry};

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

/// Ends a user's registration at its S-CSCF, so that the next one may go to another. The order is carried out even if whoever gave it
/// hangs up.
async fn release(State(node): Shared, Path(user): Path<String>) -> (StatusCode, String) {
    let Some(nth) = node.service().users().by_private(&user) else {
        return (StatusCode::NOT_FOUND, format!("there is no subscriber {user}\n"));
    };
    let carried_out = tokio::spawn(async move { carry_out(&node, nth, &user).await }).await;
    carried_out.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

async fn carry_out(node: &Node<Hss>, nth: Nth, user: &str) -> (StatusCode, String) {
    let hss = node.service();
    let host = match hss.change(nth, registry::State::release).await {
        Ok(Some(host)) => host,
        Ok(None) => return (StatusCode::CONFLICT, format!("no S-CSCF serves {user}\n")),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    if host.is_empty() {
        let text = format!("the S-CSCF of {user} is forgotten: it did not serve it yet\n");
        return (StatusCode::OK, text);
    }
    let request: Message = cx::registration_termination(hss, nth, &host);
    match node.request(request).await {
        Ok(answer) => (StatusCode::OK, format!("{host} answered {:?}\n", answer.result())),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{host}: {error}\n")),
    }
}
