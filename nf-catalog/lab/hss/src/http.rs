//! What it tells over HTTP: metrics to everybody, and on the loopback what an operator orders.

use std::fmt::Write;
use std::io;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use gantry_lab_diameter::{Message, Node};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cx;
use crate::hss::Hss;

type Shared = State<Node<Hss>>;

/// `/metrics` and `/healthz`.
pub fn metrics(node: Node<Hss>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(node)
}

/// Orders.
pub fn control(node: Node<Hss>) -> Router {
    Router::new()
        .route("/release/{user}", post(release))
        .with_state(node)
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn metrics_text(State(node): Shared) -> String {
    let hss = node.service();
    let (registered, attached) = {
        let registry = hss.registry();
        (registry.registered(), registry.attached())
    };
    let mut text = String::new();
    let gauges = [
        ("hss_subscribers", hss.users().len()),
        ("hss_registered", registered),
        ("hss_attached", attached),
        ("hss_peers", node.connected().len()),
    ];
    let written = (|| {
        for (name, value) in gauges {
            writeln!(text, "{name} {value}")?;
        }
        for (name, count) in hss.counts() {
            let (asked, refused) = (&count.asked, &count.refused);
            writeln!(
                text,
                "hss_requests_total{{command=\"{name}\"}} {}",
                asked.load(Ordering::Relaxed)
            )?;
            writeln!(
                text,
                "hss_refused_total{{command=\"{name}\"}} {}",
                refused.load(Ordering::Relaxed)
            )?;
        }
        std::fmt::Result::Ok(())
    })();
    written.expect("a String takes everything");
    text
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
