//! The load generator's own records, read from its files: `stat.csv` and `counts.csv` (a row a second), `rtt.csv` (a row a
//! response). `nf-catalog/packages/sip-load/README.md` says what they mean.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Cumulative counts at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Calls begun.
    pub created: u64,
    /// Calls failed.
    pub failed: u64,
    /// Requests sent again.
    pub retransmissions: u64,
}

/// One answered request.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// `invite`, `update` or `bye`.
    pub request: String,
    /// When the 200 came, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// From request to 200.
    pub took_ms: f64,
}

/// What the generator recorded.
#[derive(Clone, Debug, Default)]
pub struct Records {
    rows: Vec<Row>,
    /// When calls were completed (BYE answered): moment and cumulative count.
    completed: Vec<(u64, u64)>,
    responses: Vec<Response>,
}

/// Sums over a span of time.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// Calls begun.
    pub calls: u64,
    /// Calls failed.
    pub failed: u64,
    /// Requests sent again.
    pub retransmissions: u64,
    /// Calls up when it began.
    pub calls_up_before: u64,
    /// Calls up when it ended.
    pub calls_up_after: u64,
    /// Answered requests by method.
    pub responses: BTreeMap<String, u64>,
    /// The longest from request to 200.
    pub longest_response_ms: f64,
}

impl Records {
    /// Reads the three files' texts.
    pub fn parse(stat_csv: &str, counts_csv: &str, rtt_csv: &str) -> Result<Self> {
        let stat = Table::parse(stat_csv, "stat.csv")?;
        let counts = Table::parse(counts_csv, "counts.csv")?;
        let start = stat.column("StartTime")?;
        let first = stat.rows().next().context("stat.csv has no row")?;
        let start_ms = first
            .get(start)
            .and_then(|f| epoch_ms(f))
            .context("stat.csv has no start time")?;
        Ok(Self {
            rows: stat_rows(&stat)?,
            completed: completions(&counts)?,
            responses: responses(rtt_csv, start_ms),
        })
    }

    /// The counts at the end.
    pub fn last(&self) -> Row {
        self.rows.last().cloned().unwrap_or_default()
    }

    /// Calls completed at the end.
    pub fn completed(&self) -> u64 {
        self.completed.last().map_or(0, |(_, count)| *count)
    }

    /// The counts at a moment: the last row not after it.
    fn at(&self, at_ms: u64) -> Row {
        self.rows
            .iter()
            .rev()
            .find(|row| row.at_ms <= at_ms)
            .cloned()
            .unwrap_or_default()
    }

    fn up_at(&self, at_ms: u64) -> u64 {
        let completed = self
            .completed
            .iter()
            .rev()
            .find(|(at, _)| *at <= at_ms)
            .map_or(0, |(_, count)| *count);
        self.at(at_ms).created.saturating_sub(completed)
    }

    /// What happened between two moments.
    pub fn span(&self, from_ms: u64, to_ms: u64) -> Span {
        let (before, after) = (self.at(from_ms), self.at(to_ms));
        let mut responses = BTreeMap::new();
        let mut longest_response_ms: f64 = 0.0;
        for response in self
            .responses
            .iter()
            .filter(|r| (from_ms..to_ms).contains(&r.at_ms))
        {
            *responses.entry(response.request.clone()).or_default() += 1;
            longest_response_ms = longest_response_ms.max(response.took_ms);
        }
        Span {
            calls: after.created - before.created,
            failed: after.failed - before.failed,
            retransmissions: after.retransmissions - before.retransmissions,
            calls_up_before: self.up_at(from_ms),
            calls_up_after: self.up_at(to_ms),
            responses,
            longest_response_ms,
        }
    }
}

/// A file of `;`-separated fields with a heading. The last line may be half written and is then left out.
struct Table<'a> {
    name: &'static str,
    headings: Vec<&'a str>,
    lines: Vec<Vec<&'a str>>,
}

impl<'a> Table<'a> {
    fn parse(text: &'a str, name: &'static str) -> Result<Self> {
        let mut lines = text.lines();
        let headings: Vec<&str> = lines
            .next()
            .with_context(|| format!("{name} is empty"))?
            .split(';')
            .collect();
        let rows = lines
            .map(|line| line.split(';').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= headings.len());
        Ok(Self {
            name,
            lines: rows.collect(),
            headings,
        })
    }

    fn column(&self, name: &str) -> Result<usize> {
        self.headings
            .iter()
            .position(|h| *h == name)
            .with_context(|| format!("{} has no column {name}", self.name))
    }

    fn rows(&self) -> impl Iterator<Item = &Vec<&'a str>> {
        self.lines.iter()
    }
}

/// sipp's times: date, time and seconds since 1970, between tabs.
fn epoch_ms(field: &str) -> Option<u64> {
    let seconds: f64 = field.split('\t').next_back()?.trim().parse().ok()?;
    Some((seconds * 1000.0) as u64)
}

fn number(fields: &[&str], column: usize) -> Option<u64> {
    fields.get(column)?.trim().parse().ok()
}

fn stat_rows(stat: &Table<'_>) -> Result<Vec<Row>> {
    let time = stat.column("CurrentTime")?;
    let [created, failed, retransmissions] = [
        stat.column("TotalCallCreated")?,
        stat.column("FailedCall(C)")?,
        stat.column("Retransmissions(C)")?,
    ];
    let row = |fields: &Vec<&str>| {
        Some(Row {
            at_ms: epoch_ms(fields.get(time)?)?,
            created: number(fields, created)?,
            failed: number(fields, failed)?,
            retransmissions: number(fields, retransmissions)?,
        })
    };
    Ok(stat.rows().filter_map(row).collect())
}

/// A completed call is a count in the last column of received 200s.
fn completions(counts: &Table<'_>) -> Result<Vec<(u64, u64)>> {
    let time = counts.column("CurrentTime")?;
    let last = counts
        .headings
        .iter()
        .rposition(|h| h.ends_with("_200_Recv"))
        .context("counts.csv has no column of received 200s")?;
    Ok(counts
        .rows()
        .filter_map(|fields| Some((epoch_ms(fields.get(time)?)?, number(fields, last)?)))
        .collect())
}

fn responses(csv: &str, start_ms: u64) -> Vec<Response> {
    let parse = |line: &str| -> Option<Response> {
        let [since_start_ms, took_ms, what] = line.split(';').collect::<Vec<_>>().try_into().ok()?;
        let since_start_ms: f64 = since_start_ms.trim().parse().ok()?;
        Some(Response {
            request: what.trim().to_owned(),
            at_ms: start_ms + since_start_ms as u64,
            took_ms: took_ms.trim().parse().ok()?,
        })
    };
    csv.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "StartTime;CurrentTime;TotalCallCreated;FailedCall(C);Retransmissions(C);\n\
        d\tt\t1000.000000;d\tt\t1000.000000;0;0;0;\n\
        d\tt\t1000.000000;d\tt\t1001.000000;50;0;0;\n\
        d\tt\t1000.000000;d\tt\t1002.000000;100;1;2;\n\
        d\tt\t1000.000000;d\tt\t10";
    const COUNTS: &str =
        "CurrentTime;0_INVITE_Sent;1_200_Recv;3_200_Recv;\nd\tt\t1001.0;50;50;20;\nd\tt\t1002.0;100;99;75;\n";
    const RTT: &str =
        "Date_ms;response_time_ms;rtd_no\n500;4.5;invite\n1500;7;invite\n1600;9;bye\n1.7e+03;8;invite\n";

    #[test]
    fn spans_are_differences_of_rows() {
        let records = Records::parse(STAT, COUNTS, RTT).unwrap();
        let span = records.span(1_001_000, 1_002_000);
        assert_eq!((span.calls, span.failed, span.retransmissions), (50, 1, 2));
        assert_eq!((span.calls_up_before, span.calls_up_after), (30, 25));
        assert_eq!(span.longest_response_ms, 9.0);
        assert_eq!(
            span.responses,
            BTreeMap::from([("bye".to_owned(), 1), ("invite".to_owned(), 2)])
        );
        assert_eq!(records.completed(), 75);
    }
}
