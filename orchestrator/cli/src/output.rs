//! What people and programs read: tables, JSON, YAML, progress.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::Output;

/// Prints a value: as JSON or YAML if asked for, else by `text`.
pub fn print<T: Serialize>(output: Output, value: &T, text: impl FnOnce() -> String) -> Result<()> {
    let rendered = match output {
        Output::Json => serde_json::to_string_pretty(value)? + "\n",
        Output::Yaml => serde_saphyr::to_string(value).context("cannot write YAML")?,
        Output::Text | Output::Wide => text(),
    };
    write_out(&rendered)
}

/// Writes to standard output; a closed pipe (`| head`) ends the program quietly.
pub fn write_out(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("cannot write to standard output"),
    }
}

/// A table as kubectl prints it: upper-case headings, no lines.
pub fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// Green or red on a terminal, plain elsewhere or with NO_COLOR.
pub fn colour(text: &str, good: bool) -> String {
    let plain =
        !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    match (plain, good) {
        (true, _) => text.to_owned(),
        (false, true) => format!("\x1b[32m{text}\x1b[0m"),
        (false, false) => format!("\x1b[31m{text}\x1b[0m"),
    }
}

/// Without a terminal, a line about the same thing at most so often.
const QUIET: Duration = Duration::from_secs(5);

/// What is under way, on standard error: a spinner on a terminal, else a line now and then. Whoever waits sets the message at
/// every look.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
    printed: Option<Instant>,
}

impl Progress {
    pub fn new(message: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("a constant template");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let mut progress = Self {
            bar,
            last: String::new(),
            printed: None,
        };
        progress.set(message);
        progress
    }

    pub fn set(&mut self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        } else if self.is_due(message, Instant::now()) {
            gantry_log::say(message);
        }
    }

    /// Without a terminal: whether a message is printed now. One that has to wait is not forgotten: it is offered again.
    fn is_due(&mut self, message: &str, now: Instant) -> bool {
        let due = message != self.last && self.printed.is_none_or(|at| now - at >= QUIET);
        if due {
            message.clone_into(&mut self.last);
            self.printed = Some(now);
        }
        due
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `1m 5.2s`, `350ms`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1000.0),
        _ => format!("{}m {}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_has_to_wait_is_printed_later() {
        let mut progress = Progress {
            bar: None,
            last: String::new(),
            printed: None,
        };
        let start = Instant::now();
        assert!(progress.is_due("planning", start));
        // The reason comes soon after, and then nothing changes any more.
        assert!(!progress.is_due("0/1 nodes fit", start + QUIET / 2));
        assert!(progress.is_due("0/1 nodes fit", start + QUIET));
        assert!(!progress.is_due("0/1 nodes fit", start + QUIET * 3));
    }
}
