//! Calls (RFC 3261, 13 to 15): made, put on hold and taken up again, ended; and what is due of one that was taken. One at a time.

use std::net::SocketAddrV4;

use super::dialog::Dialog;
use super::leg::Leg;
use super::pad::pad;
use super::sdp::{self, Direction};
use super::{Device, Purpose};
use crate::sip::{Message, Start};

/// Audio stops so long before a call ends, in milliseconds: what is missing then is lost and not late.
const QUIET_MS: u64 = 300;
/// How long the caller wants to talk, told to the callee so that both stop their audio alike. Of this lab only.
pub(super) const TALK: &str = "X-Lab-Talk-Ms";
pub(super) const SDP_TYPE: &str = "application/sdp";

/// What a call is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whom: a URI.
    pub to: String,
    /// From the answer to the end, in milliseconds.
    pub talk_ms: u64,
    /// Puts the other end on hold for the middle third.
    pub hold: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The caller waits for an answer.
    Calling,
    /// The callee rings; it answers then.
    Ringing { answer_ms: u64 },
    /// The callee has answered and waits for the word that this was heard; it says so again then.
    Answered {
        again_ms: u64,
        interval_ms: u64,
        until_ms: u64,
    },
    /// Both talk.
    Up { since_ms: u64, step: Step },
    /// The caller wants to end it; both have talked since then.
    Ending { since_ms: u64 },
}

/// What the caller does next while both talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hold,
    Resume,
    Quiet,
    End,
    /// Waits for an answer, or for the other end.
    None,
}

/// See the module.
#[derive(Debug)]
pub struct Call {
    pub(super) is_caller: bool,
    pub(super) stage: Stage,
    /// A 180 came, or went.
    pub(super) rang: bool,
    pub(super) begun_ms: u64,
    /// The INVITE that began it, as sent or as received.
    pub(super) invite: Message,
    pub(super) dialog: Dialog,
    pub(super) plan: Plan,
    pub(super) leg: Option<Leg>,
    pub(super) sdp_version: u32,
    /// The last word on an answer, for one that comes again.
    pub(super) ack: Option<Vec<u8>>,
    /// The answer, for a request that comes again, and until it is acknowledged.
    pub(super) answer: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn leg_mut(&mut self) -> Option<&mut Leg> {
        self.leg.as_mut()
    }

    pub(super) fn wake_ms(&self) -> Option<u64> {
        let own = match self.stage {
            Stage::Ringing { answer_ms } => Some(answer_ms),
            Stage::Answered { again_ms, .. } => Some(again_ms),
            Stage::Up { since_ms, step } => self.at_ms(since_ms, step),
            Stage::Calling | Stage::Ending { .. } => None,
        };
        let audio = self.leg.as_ref().and_then(Leg::wake_ms);
        own.into_iter().chain(audio).min()
    }

    /// When a step is due.
    fn at_ms(&self, since_ms: u64, step: Step) -> Option<u64> {
        let talk_ms = self.plan.talk_ms;
        let after_ms = match step {
            Step::Hold => talk_ms / 3,
            Step::Resume => talk_ms * 2 / 3,
            Step::Quiet => talk_ms.saturating_sub(QUIET_MS),
            Step::End => talk_ms,
            Step::None => return None,
        };
        Some(since_ms + after_ms)
    }

    fn up_since_ms(&self) -> Option<u64> {
        match self.stage {
            Stage::Up { since_ms, .. } | Stage::Ending { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// When the other end stopped its audio, as both have agreed, if the call ends at that time.
    fn silent_ms(&self, now_ms: u64) -> u64 {
        self.up_since_ms()
            .map_or(now_ms.saturating_sub(QUIET_MS), |since_ms| {
                now_ms.min(since_ms + self.plan.talk_ms.saturating_sub(QUIET_MS))
            })
    }
}

impl Device {
    /// Calls somebody, unless it is in a call already or not registered.
    pub fn call(&mut self, plan: Plan, now_ms: u64) -> bool {
        if self.call.is_some() || !self.registration.stands() {
            return false;
        }
        self.counts.calls.begun += 1;
        let (own, contact) = (self.card.public.clone(), self.contact());
        let mut invite = self.first_request("INVITE", &plan.to);
        let headers = &mut invite.headers;
        headers.push("Contact", format!("<{contact}>"));
        headers.push("P-Preferred-Identity", format!("<{own}>"));
        headers.push(TALK, plan.talk_ms.to_string());
        headers.push("Content-Type", SDP_TYPE);
        invite.body = sdp::write(self.config.audio(), 1, Direction::SendRecv);
        pad(&mut invite, self.config.pad_bytes);
        self.call = Some(Call {
            is_caller: true,
            stage: Stage::Calling,
            rang: false,
            begun_ms: now_ms,
            invite: invite.clone(),
            dialog: Dialog::default(),
            plan,
            leg: None,
            sdp_version: 1,
            ack: None,
            answer: None,
        });
        self.ask(invite, Purpose::Invite, now_ms);
        true
    }

    /// A provisional response to the own INVITE.
    pub(super) fn rings(&mut self, code: u16, now_ms: u64) {
        if let Some(call) = self
            .call
            .as_mut()
            .filter(|call| code == 180 && call.stage == Stage::Calling && !call.rang)
        {
            call.rang = true;
            self.counts
                .ringing_ms
                .push(u32::try_from(now_ms - call.begun_ms).unwrap_or(u32::MAX));
        }
    }

    /// The final answer to the own INVITE; 0: nobody answered.
    pub(super) fn invited(&mut self, code: u16, response: Option<&Message>, now_ms: u64) {
        let Some(mut call) = self.call.take().filter(|call| call.is_caller) else {
            return;
        };
        let dialog = response.and_then(|response| Dialog::of_caller(&call.invite, response));
        let audio = response.and_then(|response| sdp::read(&response.body));
        match (code, dialog, audio) {
            (200..300, Some(dialog), Some((remote, _))) => {
                let ack = self.within(&dialog, "ACK", dialog.cseq).encode();
                self.out.push(ack.clone());
                let mut leg = self.leg(&dialog.call_id, true, remote);
                leg.expect(true, now_ms);
                leg.send(true, now_ms);
                call.ack = Some(ack);
                call.leg = Some(leg);
                call.dialog = dialog;
                let step = if call.plan.hold { Step::Hold } else { Step::Quiet };
                call.stage = Stage::Up {
                    since_ms: now_ms,
                    step,
                };
                self.call = Some(call);
            }
            (code, _, _) => {
                if let Some(response) = response.filter(|_| code >= 300) {
                    let ack = self.ack_of_failure(&call.invite, response);
                    self.out.push(ack);
                }
                self.counts.calls.failed(code);
            }
        }
    }

    /// The word on a failure: of the same transaction as the INVITE (17.1.1.3).
    fn ack_of_failure(&self, invite: &Message, response: &Message) -> Vec<u8> {
        let Start::Request { uri, .. } = &invite.start else {
            return Vec::new();
        };
        let mut ack = Message::request("ACK", uri);
        for (name, value) in invite.headers.iter() {
            if ["Via", "Max-Forwards", "From", "Call-ID", "Route"].contains(&name) {
                ack.headers.push(name, value);
            }
        }
        ack.headers
            .push("To", response.headers.get("To").unwrap_or_default());
        let number = invite.cseq().map_or(1, |(number, _)| number);
        ack.headers.push("CSeq", format!("{number} ACK"));
        ack.encode()
    }

    /// A request within a dialog.
    fn within(&mut self, dialog: &Dialog, method: &str, cseq: u32) -> Message {
        let contact = self.contact();
        let mut request = self.request(method, &dialog.target);
        let headers = &mut request.headers;
        for route in &dialog.routes {
            headers.push("Route", route);
        }
        headers.push("From", &dialog.local);
        headers.push("To", &dialog.remote);
        headers.push("Call-ID", &dialog.call_id);
        headers.push("CSeq", format!("{cseq} {method}"));
        headers.push("Contact", format!("<{contact}>"));
        request
    }

    /// A final response to an INVITE that came again: its word was lost.
    pub(super) fn answered_again(&mut self, response: &Message) {
        let own = self.call.as_ref().filter(|call| {
            response.method() == "INVITE" && response.headers.get("Call-ID") == Some(&call.dialog.call_id)
        });
        if let Some(ack) = own.and_then(|call| call.ack.clone()) {
            self.counts.repeated_responses += 1;
            self.out.push(ack);
        } else {
            self.counts.stray += 1;
        }
    }

    /// What is due of the call.
    pub(super) fn call_tick(&mut self, now_ms: u64) {
        let Some(mut call) = self.call.take() else { return };
        if let Some(leg) = &mut call.leg {
            leg.due(now_ms, &mut self.audio_out);
        }
        match call.stage {
            Stage::Ringing { answer_ms } if answer_ms <= now_ms => self.answer(&mut call, now_ms),
            Stage::Answered { until_ms, .. } if until_ms <= now_ms => {
                self.counts.unacknowledged += 1;
                return self.over(call, now_ms);
            }
            Stage::Answered {
                again_ms,
                interval_ms,
                until_ms,
            } if again_ms <= now_ms => {
                self.counts.repeated_answers += 1;
                self.out.extend(call.answer.clone());
                let interval_ms = (interval_ms * 2).min(self.config.timers.t2_ms);
                call.stage = Stage::Answered {
                    again_ms: now_ms + interval_ms,
                    interval_ms,
                    until_ms,
                };
            }
            Stage::Up { since_ms, step }
                if call.at_ms(since_ms, step).is_some_and(|at_ms| at_ms <= now_ms) =>
            {
                self.step(&mut call, since_ms, step, now_ms);
            }
            _ => {}
        }
        self.call = Some(call);
    }

    fn step(&mut self, call: &mut Call, since_ms: u64, step: Step, now_ms: u64) {
        let next = match step {
            Step::Hold | Step::Resume => {
                let direction = if step == Step::Hold {
                    Direction::SendOnly
                } else {
                    Direction::SendRecv
                };
                self.reinvite(call, direction, now_ms);
                Step::None
            }
            Step::Quiet => {
                if let Some(leg) = &mut call.leg {
                    leg.send(false, now_ms);
                }
                if call.is_caller { Step::End } else { Step::None }
            }
            Step::End => {
                call.dialog.cseq += 1;
                let bye = self.within(&call.dialog, "BYE", call.dialog.cseq);
                self.ask(bye, Purpose::Bye, now_ms);
                call.stage = Stage::Ending { since_ms };
                return;
            }
            Step::None => Step::None,
        };
        call.stage = Stage::Up { since_ms, step: next };
    }

    fn reinvite(&mut self, call: &mut Call, direction: Direction, now_ms: u64) {
        call.dialog.cseq += 1;
        call.sdp_version += 1;
        let mut invite = self.within(&call.dialog, "INVITE", call.dialog.cseq);
        invite.headers.push("Content-Type", SDP_TYPE);
        invite.body = sdp::write(self.config.audio(), call.sdp_version, direction);
        self.counts.holds.begun += 1;
        let purpose = Purpose::Reinvite {
            since_ms: now_ms,
            direction,
        };
        self.ask(invite, purpose, now_ms);
    }

    /// The final answer to a re-INVITE; 0: nobody answered.
    pub(super) fn reinvited(
        &mut self,
        code: u16,
        response: Option<&Message>,
        asked: (u64, Direction),
        now_ms: u64,
    ) {
        let (begun_ms, direction) = asked;
        let Some(mut call) = self.call.take() else { return };
        let Stage::Up { since_ms, .. } = call.stage else {
            self.call = Some(call);
            return;
        };
        let cseq = call.dialog.cseq;
        match (code, response.and_then(|response| sdp::read(&response.body))) {
            (200..300, Some((remote, _))) => {
                let ack = self.within(&call.dialog, "ACK", cseq).encode();
                self.out.push(ack.clone());
                call.ack = Some(ack);
                if let Some(leg) = &mut call.leg {
                    leg.remote = remote;
                    leg.expect(direction == Direction::SendRecv, now_ms);
                }
                self.counts.holds.done(now_ms.saturating_sub(begun_ms));
            }
            (code, _) => self.counts.holds.failed(code),
        }
        let next = if direction == Direction::SendOnly {
            Step::Resume
        } else {
            Step::Quiet
        };
        call.stage = Stage::Up { since_ms, step: next };
        self.call = Some(call);
    }

    /// The final answer to the own BYE; 0: nobody answered.
    pub(super) fn said_bye(&mut self, code: u16, now_ms: u64) {
        let Some(call) = self.call.take() else { return };
        let took_ms = now_ms.saturating_sub(call.begun_ms);
        self.counts.calls.ended(code, took_ms);
        self.over(call, now_ms);
    }

    /// The audio of a call that begins.
    pub(super) fn leg(&self, call_id: &str, is_caller: bool, remote: SocketAddrV4) -> Leg {
        Leg::new(call_id, is_caller, remote, self.config.late_ms)
    }

    pub(super) fn over(&mut self, call: Call, now_ms: u64) {
        self.heard(call, now_ms, false);
    }

    /// Nobody has ended it, and nobody will.
    pub(super) fn call_is_open(&mut self, call: Call, now_ms: u64) {
        self.heard(call, now_ms, true);
    }

    fn heard(&mut self, call: Call, now_ms: u64, is_open: bool) {
        let silent_ms = call.silent_ms(now_ms);
        if let Some(since_ms) = call.up_since_ms().filter(|_| call.is_caller) {
            self.counts.calls_up_ms.push((since_ms, now_ms));
        }
        if let Some(leg) = call.leg {
            self.counts.legs.push(leg.end(silent_ms, is_open));
        }
    }
}
