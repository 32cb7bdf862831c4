//! `/metrics` and `/healthz`.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Lines of `/metrics` (Prometheus, text format).
#[derive(Debug, Default)]
pub struct Metrics(String);

impl Metrics {
    /// A plain value.
    pub fn value(&mut self, name: &str, value: impl Display) {
        self.0 += &format!("{name} {value}\n");
    }

    /// A value of one label.
    pub fn labelled(&mut self, name: &str, label: (&str, &str), value: impl Display) {
        let (key, text) = label;
        self.0 += &format!("{name}{{{key}=\"{text}\"}} {value}\n");
    }

    /// All lines.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Whether a server is able to do its work; if not, what it waits for.
pub type Ready = Result<(), String>;

/// Both pages.
pub fn pages<M, R>(metrics: M, ready: R) -> Router
where
    M: Fn(&mut Metrics) + Send + Sync + 'static,
    R: Fn() -> Ready + Send + Sync + 'static,
{
    let (metrics, ready) = (Arc::new(metrics), Arc::new(ready));
    let text = move || {
        let mut page = Metrics::default();
        metrics(&mut page);
        std::future::ready(page.into_text())
    };
    let health = move || {
        std::future::ready(match ready() {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(waits_for) => (StatusCode::SERVICE_UNAVAILABLE, format!("{waits_for}\n")),
        })
    };
    Router::new()
        .route("/metrics", get(text))
        .route("/healthz", get(health))
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_prometheus_reads_them() {
        let mut metrics = Metrics::default();
        metrics.value("x", 1);
        metrics.labelled("y_total", ("command", "CCR"), 2.5);
        assert_eq!(metrics.into_text(), "x 1\ny_total{command=\"CCR\"} 2.5\n");
    }
}
