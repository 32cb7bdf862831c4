//! The callee's side of a call: it rings, answers, follows what the caller wants of the audio, and is told of the end.

use super::Device;
use super::calls::{Call, Plan, SDP_TYPE, Stage, Step, TALK};
use super::dialog::Dialog;
use super::sdp::{self, Direction};
use crate::sip::{Message, NameAddr, Start};

/// How long a device rings before it answers, in milliseconds.
const RING_MS: u64 = 100;

impl Device {
    /// An INVITE came: a call, or a change of the one that is there. The answer, if there is one now.
    pub(super) fn is_called(&mut self, invite: &Message, now_ms: u64) -> Vec<u8> {
        let tag = self.ids.tag();
        if let Some(mut call) = self.call.take() {
            let answer = match call.dialog.has(invite) {
                true => self.changed(&mut call, invite, now_ms),
                false => invite.respond(486, "Busy Here", &tag).encode(),
            };
            self.call = Some(call);
            return answer;
        }
        let (Some(dialog), Some((remote, _))) = (Dialog::of_callee(invite, &tag), sdp::read(&invite.body))
        else {
            return invite.respond(488, "Not Acceptable Here", &tag).encode();
        };
        self.judge(invite);
        let leg = self.leg(&dialog.call_id, false, remote);
        let talk_ms = invite.headers.get(TALK).and_then(|ms| ms.parse().ok());
        let plan = Plan {
            to: String::new(),
            talk_ms: talk_ms.unwrap_or(u64::MAX / 4),
            hold: false,
        };
        self.counts.taken += 1;
        let mut ringing = invite.respond(180, "Ringing", &tag);
        ringing.headers.push("Contact", format!("<{}>", self.contact()));
        self.call = Some(Call {
            is_caller: false,
            stage: Stage::Ringing {
                answer_ms: now_ms + RING_MS,
            },
            rang: true,
            begun_ms: now_ms,
            invite: invite.clone(),
            dialog,
            plan,
            leg: Some(leg),
            sdp_version: 0,
            ack: None,
            answer: None,
        });
        ringing.encode()
    }

    /// What a network must have done to a call or a message on its way: its word on who it is from, and it comes to whom it was sent to.
    pub(super) fn judge(&mut self, request: &Message) {
        let address = |name| request.headers.get(name).and_then(NameAddr::parse).map(|a| a.uri);
        let asserted = request.headers.list("P-Asserted-Identity");
        let mut asserted = asserted.iter().filter_map(|value| NameAddr::parse(value));
        if !asserted.any(|identity| Some(identity.uri) == address("From")) {
            self.counts.without_identity += 1;
        }
        let Start::Request { uri, .. } = &request.start else {
            return;
        };
        let target = uri.split(';').next().unwrap_or_default();
        let own = [&self.card.public, &self.card.number];
        let is_own = address("To").is_some_and(|to| own.iter().any(|own| *own == to));
        if target != self.contact() || !is_own {
            self.counts.wrong_targets += 1;
        }
    }

    pub(super) fn answer(&mut self, call: &mut Call, now_ms: u64) {
        let tag = NameAddr::parse(&call.dialog.local)
            .map(|own| own.tag().to_owned())
            .unwrap_or_default();
        let answer = self.answer_with(call, &call.invite.clone(), &tag, Direction::SendRecv);
        if let Some(leg) = &mut call.leg {
            leg.expect(true, now_ms);
        }
        self.out.push(answer.clone());
        self.keep_answer(&call.invite, answer.clone(), now_ms);
        call.answer = Some(answer);
        let t1_ms = self.config.timers.t1_ms;
        call.stage = Stage::Answered {
            again_ms: now_ms + t1_ms,
            interval_ms: t1_ms,
            until_ms: now_ms + 64 * t1_ms,
        };
    }

    fn answer_with(&self, call: &mut Call, invite: &Message, tag: &str, direction: Direction) -> Vec<u8> {
        call.sdp_version += 1;
        let mut answer = invite.respond(200, "OK", tag);
        answer.headers.push("Contact", format!("<{}>", self.contact()));
        answer.headers.push("Content-Type", SDP_TYPE);
        answer.body = sdp::write(self.config.audio(), call.sdp_version, direction);
        answer.encode()
    }

    /// The other end wants the audio to go otherwise.
    fn changed(&mut self, call: &mut Call, invite: &Message, now_ms: u64) -> Vec<u8> {
        let Some((remote, direction)) = sdp::read(&invite.body) else {
            return invite.respond(488, "Not Acceptable Here", "").encode();
        };
        if let Some(leg) = &mut call.leg {
            leg.remote = remote;
            leg.send(direction == Direction::SendRecv, now_ms);
        }
        self.answer_with(call, invite, "", direction.answer())
    }

    /// The caller has heard the answer.
    pub(super) fn acknowledged(&mut self, ack: &Message, now_ms: u64) {
        let Some(call) = self.call.as_mut().filter(|call| call.dialog.has(ack)) else {
            return;
        };
        if matches!(call.stage, Stage::Answered { .. }) {
            call.stage = Stage::Up {
                since_ms: now_ms,
                step: Step::Quiet,
            };
            if let Some(leg) = &mut call.leg {
                leg.send(true, now_ms);
            }
        }
    }

    /// The other end has ended it: whether there was such a call.
    pub(super) fn was_ended(&mut self, bye: &Message, now_ms: u64) -> bool {
        let Some(call) = self.call.take_if(|call| call.dialog.has(bye)) else {
            return false;
        };
        self.counts.ended_by_other += 1;
        self.over(call, now_ms);
        true
    }
}
