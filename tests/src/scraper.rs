//! Instances' own counters, scraped until each instance is gone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::gantry::Instance;

/// The largest answer read, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Counters of one instance at its last scrape: metric name to value, samples summed.
pub type Counters = BTreeMap<String, f64>;

/// Scrapes every known instance twice a second.
pub struct Scraper {
    seen: Arc<Mutex<BTreeMap<String, Counters>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    /// `instances` returns those that exist now.
    pub fn start(mut instances: impl FnMut() -> Vec<Instance> + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for instance in instances() {
                    if let Some(counters) = scrape(instance.metrics) {
                        shared
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .insert(instance.id(), counters);
                    }
                }
                thread::sleep(Duration::from_millis(400));
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// The last counters of every instance that ever was, by its id.
    pub fn counters(&self) -> BTreeMap<String, Counters> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The counters that an instance shows now, where proxies show them.
pub fn scrape(address: SocketAddr) -> Option<Counters> {
    scrape_at(address, "/metrics")
}

/// The counters that an instance shows now at a path.
pub fn scrape_at(address: SocketAddr, path: &str) -> Option<Counters> {
    page(address, path).map(|body| parse(&body))
}

/// What an instance answers for a path.
pub fn page(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut reader = BufReader::new(stream.take(MAX_ANSWER_BYTES));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    if line.split(' ').nth(1) != Some("200") {
        return None;
    }
    // Not every server ends the connection after its answer.
    let mut length: Option<usize> = None;
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length.min(MAX_ANSWER_BYTES as usize), 0);
            reader.read_exact(&mut body).ok()?;
        }
        None => drop(reader.read_to_end(&mut body).ok()?),
    }
    Some(String::from_utf8_lossy(&body).into_owned())
}

/// Prometheus text format: `name{labels} value [timestamp]`.
fn parse(body: &str) -> Counters {
    let mut counters = Counters::new();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (series, rest) = match line.split_once('}') {
            Some((series, rest)) => (series, rest),
            None => line.split_once(' ').unwrap_or((line, "")),
        };
        let name = series.split('{').next().unwrap_or_default().trim();
        if let Some(value) = rest.split_whitespace().next().and_then(|v| v.parse::<f64>().ok()) {
            *counters.entry(name.to_owned()).or_default() += value;
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn samples_of_a_metric_are_summed() {
        let counters = parse("# HELP x y\nx{a=\"1\"} 2 1000\nx{a=\"2\"} 3\ny 7\n");
        assert_eq!((counters["x"], counters["y"]), (5.0, 7.0));
    }
}
