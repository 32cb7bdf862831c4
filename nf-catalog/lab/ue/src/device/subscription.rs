//! The subscription to the own registration (RFC 3680; TS 24.229, 5.1.1.3): so the network can say that it is over.

use super::{Device, Purpose};
use crate::sip::{Message, NameAddr};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    call_id: String,
    tag: String,
}

impl Subscription {
    /// Whether a NOTIFY is of this one.
    pub(super) fn is_its(&self, notify: &Message) -> bool {
        let to = notify.headers.get("To").and_then(NameAddr::parse);
        let own_tag = to.is_some_and(|to| to.tag() == self.tag);
        own_tag && notify.headers.get("Call-ID") == Some(&self.call_id) && !self.call_id.is_empty()
    }
}

impl Device {
    /// Asks to be told.
    pub(super) fn subscribe(&mut self, now_ms: u64) {
        self.counts.subscriptions.begun += 1;
        self.counts.unnotified = 1;
        let own = self.card.public.clone();
        let mut request = self.first_request("SUBSCRIBE", &own);
        let value = |name| request.headers.get(name).unwrap_or_default().to_owned();
        self.subscription = Subscription {
            call_id: value("Call-ID"),
            tag: NameAddr::parse(&value("From"))
                .map(|from| from.tag().to_owned())
                .unwrap_or_default(),
        };
        let contact = self.contact();
        let headers = &mut request.headers;
        headers.push("Contact", format!("<{contact}>"));
        headers.push("Event", "reg");
        headers.push("Accept", "application/reginfo+xml");
        headers.push("Expires", self.config.expires_s.to_string());
        self.ask(request, Purpose::Subscribe { since_ms: now_ms }, now_ms);
    }

    /// The answer to a SUBSCRIBE; 0: nobody answered.
    pub(super) fn subscribed(&mut self, code: u16, since_ms: u64, now_ms: u64) {
        self.counts
            .subscriptions
            .ended(code, now_ms.saturating_sub(since_ms));
    }

    /// The network tells of the registration, in the words of RFC 3680.
    pub(super) fn notified(&mut self, body: &str, now_ms: u64) {
        if body.contains("<registration") {
            self.counts.unnotified = 0;
            self.reg_event(body, now_ms);
        }
    }
}
