//! What devices are told to do, and when: calls and messages at a rate, between one half of them and the other.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::device::Plan;
use crate::net::Order;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Calls begun in a second.
    pub calls_per_second: u32,
    /// Seconds of a call, from the shortest to the longest, in turn.
    pub talk_s: (u64, u64),
    /// Every so many calls is put on hold once; none if 0.
    pub hold_every: u32,
    /// Messages in a second.
    pub messages_per_second: u32,
    /// Bytes of a message.
    pub message_bytes: usize,
}

/// A device that can be told, and what it is called by.
pub struct Contact {
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
    /// What others call.
    pub uri: String,
}

impl Work {
    /// Gives orders until `stop`; how many could not be given, since a device has enough of them.
    pub async fn give(self, contacts: Vec<Contact>, stop: CancellationToken) -> u64 {
        let calls = self.every(self.calls_per_second, &contacts, &stop, |nth, to| {
            let (shortest, longest) = self.talk_s;
            let range = longest.saturating_sub(shortest) + 1;
            Order::Call(Plan {
                to,
                talk_ms: (shortest + nth % range) * 1000,
                hold: self.hold_every > 0 && nth.is_multiple_of(u64::from(self.hold_every)),
            })
        });
        let messages = self.every(self.messages_per_second, &contacts, &stop, |nth, to| {
            let mut text = format!("message {nth} ");
            text.extend(std::iter::repeat_n(
                '.',
                self.message_bytes.saturating_sub(text.len()),
            ));
            Order::Message(to, text)
        });
        let (calls, messages) = tokio::join!(calls, messages);
        calls + messages
    }

    async fn every(
        &self,
        per_second: u32,
        contacts: &[Contact],
        stop: &CancellationToken,
        order: impl Fn(u64, String) -> Order,
    ) -> u64 {
        let half = contacts.len() / 2;
        if per_second == 0 || half == 0 {
            return 0;
        }
        let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
        let mut refused = 0;
        for nth in 0.. {
            // Cancel-safe: neither holds anything.
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => break,
            }
            let from = usize::try_from(nth).unwrap_or_default() % half;
            let to = contacts[from + half].uri.clone();
            refused += u64::from(contacts[from].orders.try_send(order(nth, to)).is_err());
        }
        refused
    }
}
