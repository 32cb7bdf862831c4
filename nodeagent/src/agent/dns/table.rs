//! The names of the cluster, and what to answer. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use gantry_nodeagent_api::NodeNetwork;
use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Seconds for which an answer may be kept: short, because pods come and go.
const TTL_S: u32 = 5;

/// All names of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) struct Table {
    pub(super) gateway: IpAddr,
    domain: Name,
    names: BTreeMap<Name, Vec<IpAddr>>,
    reverse: BTreeMap<Name, Name>,
}

/// What to do with a query.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Send this.
    Answer(Box<Message>),
    /// Ask somebody else.
    Forward,
    /// That is no query: say nothing.
    Ignore,
}

impl Table {
    /// Names that are none are left out, and logged.
    pub(in crate::agent) fn new(network: &NodeNetwork, names: BTreeMap<String, Vec<IpAddr>>) -> Self {
        let domain = lower(&network.cluster_domain).unwrap_or_else(Name::root);
        let mut table = Self {
            gateway: network.gateway.into(),
            domain,
            names: BTreeMap::new(),
            reverse: BTreeMap::new(),
        };
        for (text, addresses) in names {
            let Some(name) = lower(&text) else {
                tracing::error!(name = text, "that is no DNS name: left out");
                continue;
            };
            for address in &addresses {
                let arpa = lower(&Name::from(*address).to_ascii());
                table.reverse.extend(arpa.map(|arpa| (arpa, name.clone())));
            }
            table.names.insert(name, addresses);
        }
        table
    }

    /// Answers from the table, or tells who could.
    pub(super) fn judge(&self, query: &Message) -> Verdict {
        if query.message_type() != MessageType::Query {
            return Verdict::Ignore;
        }
        let [question] = query.queries() else {
            return Verdict::Answer(Box::new(failure(query, ResponseCode::FormErr)));
        };
        if query.op_code() != OpCode::Query || question.query_class() != DNSClass::IN {
            return Verdict::Answer(Box::new(failure(query, ResponseCode::NotImp)));
        }
        let Some(name) = lower(&question.name().to_ascii()) else {
            return Verdict::Answer(Box::new(failure(query, ResponseCode::FormErr)));
        };
        if let Some(target) = self.reverse.get(&name) {
            let wanted = question.query_type() == RecordType::PTR;
            let records = wanted.then(|| RData::PTR(PTR(target.clone())));
            return Verdict::Answer(Box::new(answer(query, question, records.into_iter().collect())));
        }
        match self.names.get(&name) {
            Some(addresses) => {
                let records = addresses
                    .iter()
                    .filter_map(|a| record(*a, question.query_type()))
                    .collect();
                Verdict::Answer(Box::new(answer(query, question, records)))
            }
            None if self.domain.zone_of(&name) && !self.domain.is_root() => {
                // A name above others exists, though it has no address of its own (RFC 8020).
                let above = self.names.keys().any(|known| name.zone_of(known)) || name == self.domain;
                let code = if above {
                    ResponseCode::NoError
                } else {
                    ResponseCode::NXDomain
                };
                let mut message = failure(query, code);
                message.set_authoritative(true);
                Verdict::Answer(Box::new(message))
            }
            None => Verdict::Forward,
        }
    }
}

/// An answer without records.
pub(super) fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut header = Header::response_from_request(query.header());
    header.set_response_code(code);
    header.set_recursion_available(true);
    let mut message = Message::new();
    message.set_header(header);
    message.add_queries(query.queries().iter().cloned());
    message
}

fn answer(query: &Message, question: &Query, records: Vec<RData>) -> Message {
    let mut message = failure(query, ResponseCode::NoError);
    message.set_authoritative(true);
    for data in records {
        message.add_answer(Record::from_rdata(question.name().clone(), TTL_S, data));
    }
    message
}

fn record(address: IpAddr, wanted: RecordType) -> Option<RData> {
    match (address, wanted) {
        (IpAddr::V4(a), RecordType::A | RecordType::ANY) => Some(RData::A(A(a))),
        (IpAddr::V6(a), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(a))),
        _ => None,
    }
}

/// Lower-case and absolute.
fn lower(text: &str) -> Option<Name> {
    let mut name = Name::from_str(text).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let network = NodeNetwork {
            pod_cidr: "10.85.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "10.85.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        };
        let names = [(
            "sip.core.svc.cluster.local".to_owned(),
            vec!["10.86.0.9".parse().unwrap()],
        )];
        Table::new(&network, names.into())
    }

    fn ask(name: &str, kind: RecordType) -> Verdict {
        let mut query = Message::new();
        query.set_id(7).set_recursion_desired(true);
        query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        table().judge(&query)
    }

    fn answered(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let Verdict::Answer(message) = ask(name, kind) else {
            panic!("{name} is not answered")
        };
        assert_eq!((message.id(), message.message_type()), (7, MessageType::Response));
        (
            message.response_code(),
            message.answers().iter().map(|r| r.data().to_string()).collect(),
        )
    }

    #[test]
    fn services_are_found_whatever_the_case() {
        let found = (ResponseCode::NoError, vec!["10.86.0.9".to_owned()]);
        assert_eq!(answered("sip.core.svc.cluster.local.", RecordType::A), found);
        assert_eq!(answered("SIP.Core.svc.cluster.LOCAL.", RecordType::A), found);
        let empty = (ResponseCode::NoError, vec![]);
        assert_eq!(answered("sip.core.svc.cluster.local.", RecordType::AAAA), empty);
        assert_eq!(answered("core.svc.cluster.local.", RecordType::A), empty);
        let back = (
            ResponseCode::NoError,
            vec!["sip.core.svc.cluster.local.".to_owned()],
        );
        assert_eq!(answered("9.0.86.10.in-addr.arpa.", RecordType::PTR), back);
    }

    #[test]
    fn unknown_names_of_the_cluster_end_here_and_others_go_on() {
        assert_eq!(
            answered("x.core.svc.cluster.local.", RecordType::A),
            (ResponseCode::NXDomain, vec![])
        );
        assert!(matches!(ask("example.org.", RecordType::A), Verdict::Forward));
        assert!(matches!(
            ask("notcluster.local.", RecordType::A),
            Verdict::Forward
        ));
    }
}
