//! The report: what all devices counted, added up.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::counts::{Counts, Operation};

/// One kind of request over all devices.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct OperationReport {
    begun: u64,
    done: u64,
    failed: u64,
    /// By the code of the answer; 0: nobody answered.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed_by_code: BTreeMap<u16, u64>,
    /// Neither done nor failed when the time was over.
    open: u64,
    #[serde(flatten)]
    times: Times,
}

/// How long something took.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    p50_ms: u32,
    p95_ms: u32,
    p99_ms: u32,
    longest_ms: u32,
}

/// Packets of all calls.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audio {
    streams: u64,
    sent: u64,
    received: u64,
    lost: u64,
    /// Streams of which not one packet came.
    unheard: u64,
    doubled: u64,
    reordered: u64,
    /// Of another stream, or none.
    foreign: u64,
    /// Longer on their way than they should be.
    late: u64,
    without_call: u64,
    /// At the port of SIP.
    wrong_port: u64,
    /// Streams between two that both went on when the time was over: what was under way then is not known.
    open: u64,
    longest_gap_ms: u64,
    /// Of all times between two packets, the one that 99.9 % do not exceed.
    p999_gap_ms: u64,
    slowest_ms: u64,
}

/// All of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    ues: u64,
    registrations: OperationReport,
    refreshes: OperationReport,
    subscriptions: OperationReport,
    calls: OperationReport,
    /// The most of them that were up at the same time.
    calls_at_once: usize,
    ringing: Times,
    /// Calls of the own devices that rang at the caller.
    rang: u64,
    holds: OperationReport,
    messages: OperationReport,
    calls_taken: u64,
    calls_ended_by_other: u64,
    messages_taken: u64,
    audio: Audio,
    /// Calls and messages that were done, though no device has taken them.
    undelivered: u64,
    without_identity: u64,
    wrong_targets: u64,
    wrong_texts: u64,
    repeated_answers: u64,
    unacknowledged: u64,
    retransmissions: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    retransmissions_by_method: BTreeMap<&'static str, u64>,
    repeated_requests: u64,
    repeated_responses: u64,
    malformed: u64,
    stray: u64,
    unchallenged: u64,
    unnotified: u64,
    not_authentic: u64,
    leaked_keys: u64,
    wrong_vias: u64,
    wrong_contacts: u64,
    terminated: u64,
    /// Calls and messages that were to be begun by a device that was busy or not registered.
    not_begun: u64,
}

impl Report {
    /// Of the devices that have counted so.
    pub fn of(all: &[Counts], not_begun: u64) -> Self {
        let sum = |of: fn(&Counts) -> u64| all.iter().map(of).sum();
        let operation = |of: fn(&Counts) -> &Operation| OperationReport::of(all.iter().map(of));
        Self {
            ues: all.len() as u64,
            registrations: operation(|c| &c.registrations),
            refreshes: operation(|c| &c.refreshes),
            subscriptions: operation(|c| &c.subscriptions),
            calls: operation(|c| &c.calls),
            calls_at_once: at_once(all.iter().flat_map(|c| &c.calls_up_ms)),
            rang: all.iter().map(|c| c.ringing_ms.len() as u64).sum(),
            ringing: Times::of(all.iter().flat_map(|c| &c.ringing_ms).copied().collect()),
            holds: operation(|c| &c.holds),
            messages: operation(|c| &c.messages),
            calls_taken: sum(|c| c.taken),
            calls_ended_by_other: sum(|c| c.ended_by_other),
            messages_taken: sum(|c| c.messages_taken),
            audio: Audio::of(all),
            undelivered: sum(|c| c.calls.done).saturating_sub(sum(|c| c.taken))
                + sum(|c| c.messages.done).saturating_sub(sum(|c| c.messages_taken)),
            without_identity: sum(|c| c.without_identity),
            wrong_targets: sum(|c| c.wrong_targets),
            wrong_texts: sum(|c| c.wrong_texts),
            repeated_answers: sum(|c| c.repeated_answers),
            unacknowledged: sum(|c| c.unacknowledged),
            retransmissions: sum(|c| c.retransmissions.values().sum()),
            retransmissions_by_method: by_method(all),
            repeated_requests: sum(|c| c.repeated_requests),
            repeated_responses: sum(|c| c.repeated_responses),
            malformed: sum(|c| c.malformed),
            stray: sum(|c| c.stray),
            unchallenged: sum(|c| c.unchallenged),
            unnotified: sum(|c| c.unnotified),
            not_authentic: sum(|c| c.not_authentic),
            leaked_keys: sum(|c| c.leaked_keys),
            wrong_vias: sum(|c| c.wrong_vias),
            wrong_contacts: sum(|c| c.wrong_contacts),
            terminated: sum(|c| c.terminated),
            not_begun,
        }
    }
}

fn by_method(all: &[Counts]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (method, count) in all.iter().flat_map(|counts| &counts.retransmissions) {
        *sums.entry(*method).or_default() += count;
    }
    sums
}

/// How many of these spans overlap, at most; one that ends as another begins does not.
fn at_once<'a>(spans_ms: impl Iterator<Item = &'a (u64, u64)> + Clone) -> usize {
    let (mut begins, mut ends): (Vec<u64>, Vec<u64>) = spans_ms.copied().unzip();
    begins.sort_unstable();
    ends.sort_unstable();
    let mut over = 0;
    let open = begins.iter().enumerate().map(|(before, begin)| {
        over += ends[over..].iter().take_while(|end| *end <= begin).count();
        (before + 1).saturating_sub(over)
    });
    open.max().unwrap_or_default()
}

impl OperationReport {
    fn of<'a>(all: impl Iterator<Item = &'a Operation>) -> Self {
        let mut report = Self::default();
        let mut took_ms = Vec::new();
        for operation in all {
            report.begun += operation.begun;
            report.done += operation.done;
            for (code, count) in &operation.failed {
                *report.failed_by_code.entry(*code).or_default() += count;
            }
            took_ms.extend(&operation.took_ms);
        }
        report.failed = report.failed_by_code.values().sum();
        report.open = report.begun.saturating_sub(report.done + report.failed);
        report.times = Times::of(took_ms);
        report
    }
}

impl Times {
    fn of(mut took_ms: Vec<u32>) -> Self {
        took_ms.sort_unstable();
        let percentile = |percent: usize| {
            // The smallest that so many percent do not exceed.
            let rank = (took_ms.len() * percent).div_ceil(100).max(1);
            took_ms.get(rank - 1).copied().unwrap_or_default()
        };
        Self {
            p50_ms: percentile(50),
            p95_ms: percentile(95),
            p99_ms: percentile(99),
            longest_ms: took_ms.last().copied().unwrap_or_default(),
        }
    }
}

impl Audio {
    /// What one end has sent and the other heard; whoever has no other end was not heard at all.
    fn of(all: &[Counts]) -> Self {
        let legs = || all.iter().flat_map(|counts| &counts.legs);
        let heard: HashMap<u64, (u64, bool)> = legs()
            .map(|leg| (leg.received.0, (leg.received.1.packets, leg.is_open)))
            .collect();
        let mut audio = Self {
            without_call: all.iter().map(|counts| counts.audio_without_call).sum(),
            wrong_port: all.iter().map(|counts| counts.audio_at_sip).sum(),
            ..Self::default()
        };
        let mut gaps_ms = BTreeMap::new();
        for leg in legs() {
            let (stream, sent) = leg.sent;
            let (got, is_open) = heard.get(&stream).copied().unwrap_or_default();
            audio.streams += 1;
            audio.sent += sent;
            if leg.is_open && is_open {
                audio.open += 1;
            } else {
                audio.lost += sent.saturating_sub(got);
            }
            audio.unheard += u64::from(got == 0 && sent > 0);
            let received = &leg.received.1;
            audio.received += received.packets;
            audio.doubled += received.doubled;
            audio.reordered += received.reordered;
            audio.foreign += received.foreign;
            audio.late += received.late;
            audio.longest_gap_ms = audio.longest_gap_ms.max(received.longest_gap_ms);
            audio.slowest_ms = audio.slowest_ms.max(received.slowest_ms);
            for (gap_ms, times) in &received.gaps_ms {
                *gaps_ms.entry(*gap_ms).or_default() += times;
            }
        }
        audio.p999_gap_ms = exceeded_by_few(&gaps_ms);
        audio
    }
}

/// The smallest that at most one in a thousand exceeds, of values that came so many times.
fn exceeded_by_few(times: &BTreeMap<u64, u64>) -> u64 {
    let few = times.values().sum::<u64>() / 1000;
    let mut above = 0;
    let mut greatest_first = times.iter().rev();
    let found = greatest_first.find(|(_, times)| {
        above += *times;
        above > few
    });
    found.map_or(0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LegCount;
    use crate::rtp::{Packet, Received};

    #[test]
    fn a_report_adds_up_and_hides_nothing() {
        let mut one = Counts::default();
        one.registrations.begun = 3;
        one.registrations.done(5);
        one.registrations.failed(504);
        let mut other = Counts::default();
        other.registrations.begun = 2;
        other.registrations.done(1);
        other.registrations.done(9);
        other.retransmissions = BTreeMap::from([("BYE", 3), ("REGISTER", 1)]);
        let report = Report::of(&[one, other], 0);
        let registrations = &report.registrations;
        assert_eq!(
            (
                registrations.begun,
                registrations.done,
                registrations.failed,
                registrations.open
            ),
            (5, 3, 1, 1)
        );
        let times = &registrations.times;
        assert_eq!((times.p50_ms, times.p95_ms, times.longest_ms), (5, 9, 9));
        assert_eq!((report.ues, report.retransmissions), (2, 4));
        assert_eq!(report.retransmissions_by_method["BYE"], 3);
        assert_eq!(Report::of(&[], 0).registrations, OperationReport::default());
    }

    #[test]
    fn spans_that_touch_do_not_overlap() {
        for (spans, most) in [
            (vec![], 0),
            (vec![(0, 10), (10, 20), (20, 30)], 1),
            (vec![(15, 16), (0, 30), (12, 14), (10, 13), (40, 50)], 3),
            // A span without length is over before it counts others.
            (vec![(5, 5), (0, 9)], 1),
        ] {
            assert_eq!(at_once(spans.iter()), most, "{spans:?}");
        }
    }

    #[test]
    fn one_in_a_thousand_may_be_longer() {
        assert_eq!(exceeded_by_few(&BTreeMap::new()), 0);
        assert_eq!(
            exceeded_by_few(&BTreeMap::from([(20, 999), (21, 1000), (300, 1)])),
            21
        );
        assert_eq!(
            exceeded_by_few(&BTreeMap::from([(20, 999), (300, 1), (400, 1)])),
            300
        );
    }

    /// A stream of ten packets, of which seven were heard, at its two ends.
    fn ends(sender_is_open: bool, hearer_is_open: bool) -> [Counts; 2] {
        let mut ends = [Counts::default(), Counts::default()];
        let mut received = Received::new(100);
        for number in 0..7 {
            let packet = Packet {
                stream: 1,
                number,
                sent_ms: 0,
            };
            received.take(1, &packet.encode(), 0);
        }
        let sender = LegCount {
            sent: (1, 10),
            received: (2, Received::default()),
            is_open: sender_is_open,
        };
        let hearer = LegCount {
            sent: (2, 0),
            received: (1, received),
            is_open: hearer_is_open,
        };
        ends[0].legs.push(sender);
        ends[1].legs.push(hearer);
        ends
    }

    #[test]
    fn what_an_end_heard_counts_though_its_call_is_not_over() {
        for (sender, hearer, lost, open) in [
            (false, false, 3, 0),
            (false, true, 3, 0),
            (true, false, 3, 0),
            (true, true, 0, 2),
        ] {
            let audio = Report::of(&ends(sender, hearer), 0).audio;
            assert_eq!((audio.lost, audio.open), (lost, open), "{sender} {hearer}");
        }
    }
}
