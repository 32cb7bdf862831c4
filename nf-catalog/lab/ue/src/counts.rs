//! What a device has seen. Nothing is inferred: what is not in an answer is not counted as good.

use std::collections::BTreeMap;

use crate::device::LegCount;

/// Answers to one kind of request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Begun.
    pub begun: u64,
    /// Ended as they should.
    pub done: u64,
    /// Ended otherwise, by the code of the answer; 0: nobody answered.
    pub failed: BTreeMap<u16, u64>,
    /// Milliseconds that those took which were done.
    pub took_ms: Vec<u32>,
}

impl Operation {
    /// One has its final answer; 0: nobody answered.
    pub fn ended(&mut self, code: u16, took_ms: u64) {
        match code {
            200..300 => self.done(took_ms),
            code => self.failed(code),
        }
    }

    /// One has ended well.
    pub fn done(&mut self, took_ms: u64) {
        self.done += 1;
        self.took_ms.push(u32::try_from(took_ms).unwrap_or(u32::MAX));
    }

    /// One has ended otherwise.
    pub fn failed(&mut self, code: u16) {
        *self.failed.entry(code).or_default() += 1;
    }
}

/// All that a device counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// First registrations, and those after their end.
    pub registrations: Operation,
    /// Registrations of what was registered.
    pub refreshes: Operation,
    /// Subscriptions to the own registration.
    pub subscriptions: Operation,
    /// Calls that were made: done with the answer to their end; the time is to that.
    pub calls: Operation,
    /// From when to when calls that were made were up.
    pub calls_up_ms: Vec<(u64, u64)>,
    /// Milliseconds from an INVITE to its first 180; one for each call that rang.
    pub ringing_ms: Vec<u32>,
    /// Calls put on hold, and taken up again.
    pub holds: Operation,
    /// Messages that were sent.
    pub messages: Operation,
    /// Calls that came.
    pub taken: u64,
    /// Calls that the other end has ended.
    pub ended_by_other: u64,
    /// Messages that came.
    pub messages_taken: u64,
    /// Answers that were given again, since nobody said that they were heard.
    pub repeated_answers: u64,
    /// Answers of which nobody ever said that they were heard.
    pub unacknowledged: u64,
    /// Calls and messages that came without the network's word on who they are from, or with its word on another.
    pub without_identity: u64,
    /// Calls and messages that were sent to another, or for another contact.
    pub wrong_targets: u64,
    /// Messages whose text is not as it was sent.
    pub wrong_texts: u64,
    /// What was sent and heard in each call.
    pub legs: Vec<LegCount>,
    /// Audio that came when there was no call.
    pub audio_without_call: u64,
    /// Audio that came where SIP is taken.
    pub audio_at_sip: u64,
    /// Requests that were sent again, by method.
    pub retransmissions: BTreeMap<&'static str, u64>,
    /// Requests of others that came again.
    pub repeated_requests: u64,
    /// Final responses that came again.
    pub repeated_responses: u64,
    /// What is no SIP.
    pub malformed: u64,
    /// Responses to nothing that was asked.
    pub stray: u64,
    /// Registrations that were granted though no challenge was answered.
    pub unchallenged: u64,
    /// 1 while the network, asked to tell of the registration, has told nothing (RFC 6665, 4.2.1.2: it does at once).
    pub unnotified: u64,
    /// Challenges of a network that does not know the key.
    pub not_authentic: u64,
    /// Challenges that show CK or IK to the device.
    pub leaked_keys: u64,
    /// Responses with another number of Vias than one.
    pub wrong_vias: u64,
    /// Registrations that were answered without the device's contact, or without its time.
    pub wrong_contacts: u64,
    /// Words of the network that the registration is over.
    pub terminated: u64,
}
