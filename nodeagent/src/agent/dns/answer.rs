//! Answers: with records, without any, and cut to what the client can take. No I/O.

use hickory_proto::op::{Edns, Header, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Seconds for which an answer may be kept, one that says no too: short, because pods come and go.
pub(super) const TTL_S: u32 = 5;
/// Largest answer over UDP to one who does not say otherwise (RFC 1035, 4.2.1).
const UDP_BYTES: usize = 512;
/// Largest answer over UDP to anybody: what is larger is cut up on the way, or lost (DNS flag day 2020).
const UDP_MOST_BYTES: u16 = 1232;

/// An answer without records.
pub(super) fn empty(query: &Message, code: ResponseCode) -> Message {
    let mut header = Header::response_from_request(query.header());
    header.set_response_code(code);
    header.set_recursion_available(true);
    let mut message = Message::new();
    message.set_header(header);
    message.add_queries(query.queries().iter().cloned());
    if query.extensions().is_some() {
        let mut edns = Edns::new();
        edns.set_version(0)
            .set_max_payload(UDP_MOST_BYTES)
            .set_rcode_high(code.high());
        message.set_edns(edns);
    }
    message
}

/// No such name, or nothing of this type under it; and for how long that may be believed (RFC 2308).
pub(super) fn negative(query: &Message, code: ResponseCode, domain: &Name) -> Message {
    let mut message = empty(query, code);
    message.set_authoritative(true);
    message.add_name_server(record(domain.clone(), TTL_S, soa(domain)));
    message
}

/// The records that were asked for.
pub(super) fn positive(query: &Message, records: Vec<RData>) -> Message {
    let mut message = empty(query, ResponseCode::NoError);
    message.set_authoritative(true);
    if let Some(question) = query.queries().first() {
        for data in records {
            message.add_answer(record(question.name().clone(), TTL_S, data));
        }
    }
    message
}

pub(super) fn record(name: Name, ttl_s: u32, data: RData) -> Record {
    Record::from_rdata(name, ttl_s, data)
}

/// The name of the cluster's DNS server.
pub(super) fn server(domain: &Name) -> Name {
    below("ns.dns", domain)
}

/// The start of authority, as other DNS servers of Kubernetes have it.
pub(super) fn soa(domain: &Name) -> RData {
    let (server, person) = (server(domain), below("hostmaster", domain));
    RData::SOA(SOA::new(server, person, 1, 7200, 1800, 86_400, TTL_S))
}

fn below(label: &str, domain: &Name) -> Name {
    Name::from_ascii(label)
        .and_then(|name| name.append_domain(domain))
        .unwrap_or_else(|_| domain.clone())
}

/// Of what is no question by its form, as far as its header can be read: that one, and that it is none.
pub(super) fn malformed(bytes: &[u8]) -> Option<(Message, Message)> {
    let header = Header::read(&mut BinDecoder::new(bytes)).ok()?;
    let mut query = Message::new();
    query.set_header(header);
    let answer = empty(&query, ResponseCode::FormErr);
    (header.message_type() == MessageType::Query).then_some((query, answer))
}

/// As it goes over TCP: its length and it in one piece (RFC 7766, section 8).
pub(super) fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes(), message].concat())
}

/// As bytes; cut down, and marked so, if the client cannot take all of it.
pub(super) fn encode(query: &Message, message: &Message, udp: bool) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    let room = if udp {
        usize::from(query.max_payload().min(UDP_MOST_BYTES)).max(UDP_BYTES)
    } else {
        usize::from(u16::MAX)
    };
    if bytes.len() <= room {
        return Some(bytes);
    }
    let mut less = message.clone();
    // What nobody asked for goes first.
    less.take_additionals();
    let bytes = less.to_vec().ok()?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    less.take_answers();
    less.set_truncated(true);
    less.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn encoded(records: u8, payload: Option<u16>, udp: bool) -> Message {
        let mut query = Message::new();
        query.add_query(Query::query(Name::from_ascii("a.b.").unwrap(), RecordType::A));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            query.set_edns(edns);
        }
        let records = (0..records).map(|i| RData::A(A::new(10, 0, 0, i)));
        let message = positive(&query, records.collect());
        let bytes = encode(&query, &message, udp).unwrap();
        assert!(!udp || bytes.len() <= usize::from(payload.unwrap_or(512).min(1232)));
        Message::from_vec(&bytes).unwrap()
    }

    #[test]
    fn what_is_malformed_is_answered_so_if_its_header_says_that_it_asks() {
        let answered = |bytes: &[u8]| {
            let (_, answer) = malformed(bytes)?;
            let answer = Message::from_vec(&answer.to_vec().unwrap()).unwrap();
            Some((answer.id(), answer.message_type(), answer.response_code()))
        };
        // One question that is missing.
        let mut bytes = [0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let told = (9, MessageType::Response, ResponseCode::FormErr);
        assert!(Message::from_vec(&bytes).is_err());
        assert_eq!((answered(&bytes), answered(&bytes[..11])), (Some(told), None));
        bytes[2] |= 0x80;
        assert_eq!(answered(&bytes), None, "an answer");
    }

    #[test]
    fn answers_are_cut_to_what_the_client_takes() {
        let counts = |m: Message| (m.answers().len(), m.truncated(), m.extensions().is_some());
        assert_eq!(counts(encoded(20, None, true)), (20, false, false));
        assert_eq!(counts(encoded(60, None, true)), (0, true, false));
        assert_eq!(counts(encoded(60, Some(1232), true)), (60, false, true));
        assert_eq!(counts(encoded(200, Some(65_000), true)), (0, true, true));
        assert_eq!(counts(encoded(200, None, false)), (200, false, false));
    }
}
