//! A dialog (RFC 3261, 12): who is at the other end, and the way there.

use crate::sip::{Message, NameAddr};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialog {
    pub(super) call_id: String,
    /// Value of the own From, its tag included.
    pub(super) local: String,
    /// Value of the other's To, its tag included once that is known.
    pub(super) remote: String,
    /// Contact of the other end.
    pub(super) target: String,
    /// Route headers, in order.
    pub(super) routes: Vec<String>,
    /// Of the last own request.
    pub(super) cseq: u32,
}

impl Dialog {
    /// The caller's, by the response that makes it. `None` if that names nobody.
    pub(super) fn of_caller(invite: &Message, response: &Message) -> Option<Self> {
        let mut routes = owned(response.headers.list("Record-Route"));
        routes.reverse();
        Some(Self {
            call_id: invite.headers.get("Call-ID")?.to_owned(),
            local: invite.headers.get("From")?.to_owned(),
            remote: response.headers.get("To")?.to_owned(),
            target: contact(response)?,
            routes,
            cseq: invite.cseq()?.0,
        })
    }

    /// The callee's, by the request that makes it and the tag of the answer.
    pub(super) fn of_callee(invite: &Message, tag: &str) -> Option<Self> {
        Some(Self {
            call_id: invite.headers.get("Call-ID")?.to_owned(),
            local: format!("{};tag={tag}", invite.headers.get("To")?),
            remote: invite.headers.get("From")?.to_owned(),
            target: contact(invite)?,
            routes: owned(invite.headers.list("Record-Route")),
            cseq: 0,
        })
    }

    /// Whether a request of the other end is within it.
    pub(super) fn has(&self, request: &Message) -> bool {
        let tag = |value: &str| {
            NameAddr::parse(value)
                .map(|a| a.tag().to_owned())
                .unwrap_or_default()
        };
        let to = request.headers.get("To").map(tag).unwrap_or_default();
        request.headers.get("Call-ID") == Some(&self.call_id) && to == tag(&self.local)
    }
}

fn contact(message: &Message) -> Option<String> {
    let contacts = message.headers.list("Contact");
    Some(NameAddr::parse(contacts.first()?)?.uri.to_owned())
}

fn owned(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}
