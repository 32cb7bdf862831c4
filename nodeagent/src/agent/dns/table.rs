//! The names of the cluster, and what to answer. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use gantry_nodeagent_api::{NodeNetwork, SrvTarget};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use ipnet::Ipv4Net;

use super::answer::{self, TTL_S};
use super::places::{Group, Source};

/// All names of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) struct Table {
    pub(super) gateway: IpAddr,
    domain: Name,
    names: BTreeMap<Name, Entry>,
    /// Names that have nothing themselves and others below them (RFC 8020).
    above: HashSet<Name>,
    reverse: BTreeMap<Name, Name>,
    /// Whose pods are where.
    pods: HashMap<IpAddr, Arc<str>>,
    /// Whose reverse names are ours.
    networks: [Ipv4Net; 2],
}

/// What a name has.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    addresses: Vec<IpAddr>,
    srv: Vec<(Name, u16)>,
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
    pub(in crate::agent) fn new(
        network: &NodeNetwork,
        pods: BTreeMap<Ipv4Addr, String>,
        addresses: BTreeMap<String, Vec<IpAddr>>,
        srv: BTreeMap<String, Vec<SrvTarget>>,
    ) -> Self {
        let domain = lower(&network.cluster_domain).unwrap_or_else(Name::root);
        let mut table = Self {
            gateway: network.gateway.into(),
            domain,
            names: BTreeMap::new(),
            above: HashSet::new(),
            reverse: BTreeMap::new(),
            pods: pods
                .into_iter()
                .map(|(address, namespace)| (address.into(), namespace.into()))
                .collect(),
            networks: [network.pod_cidr, network.service_cidr],
        };
        for (text, addresses) in addresses {
            let Some(name) = named(&text) else { continue };
            for address in &addresses {
                let arpa = lower(&Name::from(*address).to_ascii());
                table.reverse.extend(arpa.map(|arpa| (arpa, name.clone())));
            }
            table.entry(name).addresses = addresses;
        }
        for (text, targets) in srv {
            let Some(name) = named(&text) else { continue };
            let targets = targets
                .into_iter()
                .filter_map(|t| Some((named(&t.name)?, t.port)));
            table.entry(name).srv = targets.collect();
        }
        table
    }

    /// Who asks from there.
    pub(super) fn source(&self, address: IpAddr) -> Source {
        let group = match self.pods.get(&address) {
            Some(namespace) => Group::Namespace(namespace.clone()),
            None if address == self.gateway || address.is_loopback() => Group::Host,
            None => return Source::UNKNOWN,
        };
        Source { group, address }
    }

    /// What a name has; the names above it are remembered.
    fn entry(&mut self, name: Name) -> &mut Entry {
        let mut above = name.base_name();
        while self.domain.zone_of(&above) && self.above.insert(above.clone()) && !above.is_root() {
            above = above.base_name();
        }
        self.names.entry(name).or_default()
    }

    /// Answers from the table, or tells who could.
    pub(super) fn judge(&self, query: &Message) -> Verdict {
        if query.message_type() != MessageType::Query {
            return Verdict::Ignore;
        }
        Verdict::Answer(Box::new(match self.answer(query) {
            Ok(Some(message)) => message,
            Ok(None) => return Verdict::Forward,
            Err(code) => answer::empty(query, code),
        }))
    }

    /// `None` for what others know.
    fn answer(&self, query: &Message) -> Result<Option<Message>, ResponseCode> {
        if query.extensions().as_ref().is_some_and(|e| e.version() > 0) {
            return Err(ResponseCode::BADVERS);
        }
        let [question] = query.queries() else {
            return Err(ResponseCode::FormErr);
        };
        if query.op_code() != OpCode::Query || question.query_class() != DNSClass::IN {
            return Err(ResponseCode::NotImp);
        }
        let name = lower(&question.name().to_ascii()).ok_or(ResponseCode::FormErr)?;
        let wanted = question.query_type();
        let records = if let Some(target) = self.reverse.get(&name) {
            matches!(wanted, RecordType::PTR | RecordType::ANY)
                .then(|| RData::PTR(PTR(target.clone())))
                .into_iter()
                .collect()
        } else if let Some(entry) = self.names.get(&name) {
            entry.records(wanted)
        } else if self.domain.is_root() || !self.domain.zone_of(&name) {
            if !self.is_own_address(&name) {
                return Ok(None);
            }
            return Ok(Some(answer::negative(
                query,
                ResponseCode::NXDomain,
                &self.domain,
            )));
        } else if name == self.domain {
            self.apex(wanted)
        } else if self.above.contains(&name) {
            Vec::new()
        } else {
            return Ok(Some(answer::negative(
                query,
                ResponseCode::NXDomain,
                &self.domain,
            )));
        };
        if records.is_empty() {
            return Ok(Some(answer::negative(query, ResponseCode::NoError, &self.domain)));
        }
        let mut message = answer::positive(query, records);
        if wanted == RecordType::SRV {
            self.add_targets(&name, &mut message);
        }
        Ok(Some(message))
    }

    /// The domain itself.
    fn apex(&self, wanted: RecordType) -> Vec<RData> {
        match wanted {
            RecordType::SOA => vec![answer::soa(&self.domain)],
            RecordType::NS => vec![RData::NS(NS(answer::server(&self.domain)))],
            _ => Vec::new(),
        }
    }

    /// The reverse name of one of our addresses: nobody else knows it.
    fn is_own_address(&self, name: &Name) -> bool {
        let text = name.to_ascii();
        let Some(text) = text.strip_suffix(".in-addr.arpa.") else {
            return false;
        };
        let parts: Vec<u8> = text.split('.').filter_map(|part| part.parse().ok()).collect();
        let [d, c, b, a] = parts[..] else { return false };
        self.networks
            .iter()
            .any(|network| network.contains(&Ipv4Addr::new(a, b, c, d)))
    }

    /// Addresses of the targets, so that nobody has to ask again (RFC 2782).
    fn add_targets(&self, name: &Name, message: &mut Message) {
        let targets = self.names.get(name).map_or(&[][..], |entry| &entry.srv);
        for (target, _) in targets {
            let addresses = self.names.get(target).map_or(&[][..], |entry| &entry.addresses);
            for address in addresses {
                let data = record(*address, RecordType::ANY);
                message.add_additionals(data.map(|data| answer::record(target.clone(), TTL_S, data)));
            }
        }
    }
}

impl Entry {
    fn records(&self, wanted: RecordType) -> Vec<RData> {
        if wanted == RecordType::SRV {
            let weight = u16::try_from(100 / self.srv.len().max(1)).unwrap_or(1).max(1);
            let srv = |(target, port): &(Name, u16)| RData::SRV(SRV::new(0, weight, *port, target.clone()));
            return self.srv.iter().map(srv).collect();
        }
        self.addresses.iter().filter_map(|a| record(*a, wanted)).collect()
    }
}

fn record(address: IpAddr, wanted: RecordType) -> Option<RData> {
    match (address, wanted) {
        (IpAddr::V4(a), RecordType::A | RecordType::ANY) => Some(RData::A(A(a))),
        (IpAddr::V6(a), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(a))),
        _ => None,
    }
}

fn named(text: &str) -> Option<Name> {
    let name = lower(text);
    if name.is_none() {
        tracing::error!(name = text, "that is no DNS name: left out");
    }
    name
}

/// Lower-case and absolute.
fn lower(text: &str) -> Option<Name> {
    let mut name = Name::from_str(text).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    fn table() -> Table {
        let network = NodeNetwork {
            pod_cidr: "10.85.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "10.85.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        };
        let at = |name: &str, address: &str| (name.to_owned(), vec![address.parse().unwrap()]);
        let names = [
            at("sip.core.svc.cluster.local", "10.86.0.9"),
            at("hss.core.svc.cluster.local", "10.85.0.7"),
            at("10-85-0-7.hss.core.svc.cluster.local", "10.85.0.7"),
        ];
        let srv = |port: &str, name: &str, number| {
            let target = SrvTarget {
                name: name.to_owned(),
                port: number,
            };
            (port.to_owned(), vec![target])
        };
        let srv = [
            srv(
                "_sip._udp.sip.core.svc.cluster.local",
                "sip.core.svc.cluster.local",
                5060,
            ),
            srv(
                "_diameter._tcp.hss.core.svc.cluster.local",
                "10-85-0-7.hss.core.svc.cluster.local",
                3868,
            ),
        ];
        let pods = [("10.85.0.7".parse().unwrap(), "core".to_owned())];
        Table::new(&network, pods.into(), names.into(), srv.into())
    }

    fn ask(name: &str, kind: RecordType) -> Verdict {
        let mut query = Message::new();
        query.set_id(7).set_recursion_desired(true);
        query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        table().judge(&query)
    }

    fn message(name: &str, kind: RecordType) -> Message {
        let Verdict::Answer(message) = ask(name, kind) else {
            panic!("{name} is not answered")
        };
        assert_eq!((message.id(), message.message_type()), (7, MessageType::Response));
        *message
    }

    fn answered(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let message = message(name, kind);
        // Whatever says nothing says for how long (RFC 2308).
        let authority = message.name_servers();
        let is_soa = |r: &hickory_proto::rr::Record| r.record_type() == RecordType::SOA;
        assert_eq!(
            message.answers().is_empty(),
            authority.len() == 1 && authority.iter().all(is_soa)
        );
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
        for (name, kind) in [
            ("sip.core.svc.cluster.local.", RecordType::AAAA),
            ("core.svc.cluster.local.", RecordType::A),
            ("_udp.sip.core.svc.cluster.local.", RecordType::SRV),
            ("_sip._udp.sip.core.svc.cluster.local.", RecordType::A),
            ("cluster.local.", RecordType::A),
        ] {
            assert_eq!(answered(name, kind), empty, "{name}");
        }
        let back = (
            ResponseCode::NoError,
            vec!["sip.core.svc.cluster.local.".to_owned()],
        );
        assert_eq!(answered("9.0.86.10.in-addr.arpa.", RecordType::PTR), back);
    }

    #[test]
    fn ports_with_names_are_found_with_the_addresses_of_their_targets() {
        let (code, found) = answered("_SIP._udp.sip.core.svc.cluster.local.", RecordType::SRV);
        assert_eq!(
            (code, found),
            (
                ResponseCode::NoError,
                vec!["0 100 5060 sip.core.svc.cluster.local.".to_owned()]
            )
        );
        let message = message("_diameter._tcp.hss.core.svc.cluster.local.", RecordType::SRV);
        assert_eq!(
            message.answers()[0].data().to_string(),
            "0 100 3868 10-85-0-7.hss.core.svc.cluster.local."
        );
        assert_eq!(message.additionals()[0].data().to_string(), "10.85.0.7");
    }

    #[test]
    fn unknown_names_of_the_cluster_end_here_and_others_go_on() {
        for name in ["x.core.svc.cluster.local.", "1.0.86.10.in-addr.arpa."] {
            assert_eq!(
                answered(name, RecordType::A),
                (ResponseCode::NXDomain, vec![]),
                "{name}"
            );
        }
        let (_, soa) = answered("cluster.local.", RecordType::SOA);
        assert!(
            soa[0].starts_with("ns.dns.cluster.local. hostmaster.cluster.local."),
            "{soa:?}"
        );
        for name in ["example.org.", "notcluster.local.", "1.0.0.9.in-addr.arpa."] {
            assert!(matches!(ask(name, RecordType::A), Verdict::Forward), "{name}");
        }
    }

    #[test]
    fn whoever_asks_is_a_pod_the_host_or_one_of_all_that_are_unknown() {
        let of = |address: &str| table().source(address.parse().unwrap());
        assert_eq!(of("10.85.0.7").group, Group::Namespace("core".into()));
        assert_eq!(
            (of("10.85.0.1").group, of("127.0.0.1").group),
            (Group::Host, Group::Host)
        );
        assert_eq!(
            (of("10.85.0.8"), of("192.0.2.1")),
            (Source::UNKNOWN, Source::UNKNOWN)
        );
    }

    #[test]
    fn what_is_no_question_is_answered_so() {
        let none = table().judge(&Message::new());
        assert!(matches!(none, Verdict::Answer(m) if m.response_code() == ResponseCode::FormErr));
        let mut answer = Message::new();
        answer.set_message_type(MessageType::Response);
        assert!(matches!(table().judge(&answer), Verdict::Ignore));
    }
}
