//! Short messages (RFC 3428).

use std::hash::{DefaultHasher, Hash, Hasher};

use super::pad::pad;
use super::{Device, Purpose};
use crate::sip::Message;

/// What was sent, for who takes it: a text that another has changed is seen.
const SUM: &str = "X-Lab-Sum";

fn sum(text: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Device {
    /// Sends a text, if it is registered.
    pub fn message(&mut self, to: &str, text: &str, now_ms: u64) -> bool {
        if !self.registration.stands() {
            return false;
        }
        self.counts.messages.begun += 1;
        let own = self.card.public.clone();
        let mut request = self.first_request("MESSAGE", to);
        let headers = &mut request.headers;
        headers.push("P-Preferred-Identity", format!("<{own}>"));
        headers.push("Content-Type", "text/plain");
        request.body = text.as_bytes().to_vec();
        pad(&mut request, self.config.pad_bytes);
        let sum = sum(&request.body);
        request.headers.push(SUM, sum);
        self.ask(request, Purpose::Message { since_ms: now_ms }, now_ms);
        true
    }

    /// The answer to a MESSAGE; 0: nobody answered.
    pub(super) fn messaged(&mut self, code: u16, since_ms: u64, now_ms: u64) {
        self.counts.messages.ended(code, now_ms.saturating_sub(since_ms));
    }

    /// One came.
    pub(super) fn takes_message(&mut self, request: &Message) {
        self.counts.messages_taken += 1;
        self.judge(request);
        if request.headers.get(SUM) != Some(&sum(&request.body)) {
            self.counts.wrong_texts += 1;
        }
    }
}
