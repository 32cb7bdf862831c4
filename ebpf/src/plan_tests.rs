use std::net::Ipv4Addr;

use super::*;
use crate::maglev;
use crate::services::Protocol;

fn backend(last: u8, state: BackendState) -> Backend {
    Backend {
        address: Ipv4Addr::new(10, 85, 0, last),
        port: 5060,
        weight: 1,
        state,
        udp_idle_s: 300,
    }
}

fn plan(observed: &Observed, services: &[Service]) -> Writes {
    let wanted = services.iter().map(|s| (s.key(), s.clone())).collect();
    super::plan(observed, &wanted)
}

fn service(port: u16, backends: &[Backend]) -> Service {
    let vip = Ipv4Addr::new(10, 86, 0, 1);
    Service {
        vip,
        port,
        protocol: Protocol::Udp,
        backends: backends.to_vec(),
    }
}

/// What the kernel has after the writes.
fn apply(mut observed: Observed, writes: &Writes) -> Observed {
    observed.next_backend = writes.next_backend;
    observed.backends.extend(writes.backends.clone());
    observed.services.extend(writes.new_services.clone());
    observed
        .services
        .retain(|k, _| !writes.gone_services.contains_key(k));
    observed
        .backends
        .retain(|id, _| !writes.gone_backends.contains(id));
    observed
}

#[test]
fn ids_are_stable_and_never_used_twice() {
    use BackendState::{Active, Draining};
    let both = [service(5060, &[backend(2, Active), backend(3, Active)])];
    let first = plan(&Observed::default(), &both);
    assert_eq!(first.new_backends, BTreeSet::from([1, 2]));
    let observed = apply(Observed::default(), &first);

    let again = plan(&observed, &both);
    assert!(again.backends.is_empty() && again.new_services.is_empty() && again.gone_backends.is_empty());
    assert_eq!(again.tables, first.tables);

    let draining = [service(5060, &[backend(2, Active), backend(3, Draining)])];
    let drain = plan(&observed, &draining);
    assert_eq!(drain.backends.keys().collect::<Vec<_>>(), [&2]);
    let only = |(_, entries): &(u32, Vec<Entry>)| !maglev::table(entries).contains(&2);
    assert!(drain.tables.values().all(only));
    let observed = apply(observed, &drain);

    let removed = plan(&observed, &[service(5060, &[backend(2, Active)])]);
    assert_eq!(removed.gone_backends, BTreeSet::from([2]));
    let observed = apply(observed, &removed);
    let back = plan(&observed, &both);
    assert_eq!(back.new_backends, BTreeSet::from([3]));
}

#[test]
fn an_index_freed_in_a_sync_is_not_given_out_in_it() {
    let first = plan(&Observed::default(), &[service(1, &[])]);
    let observed = apply(Observed::default(), &first);
    let second = plan(&observed, &[service(2, &[])]);
    assert_eq!(second.gone_services.len(), 1);
    assert_eq!(second.new_services.values().copied().collect::<Vec<_>>(), [1]);
}
