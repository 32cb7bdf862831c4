use gantry_lab_aka::{Key, Sqn};
use gantry_lab_radio::{Bytes, Down};

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 2);
const MS: Duration = Duration::from_millis(1);

fn imsi(nth: u32) -> String {
    format!("00101000000000{nth}")
}

fn key() -> Key {
    Key::new([1; 16], [2; 16])
}

fn sgw() -> Tunnel {
    Tunnel {
        address: Ipv4Addr::new(10, 0, 0, 2),
        teid: 5,
    }
}

fn cell(count: u32) -> (Cell, Instant) {
    let subscribers = (0..count).map(|nth| Subscriber {
        imsi: imsi(nth),
        msisdn: nth.to_string(),
        key: key(),
    });
    let config = Config {
        own: Ipv4Addr::new(10, 0, 0, 4),
        between: 20 * MS,
        retry: Some(10_000 * MS),
        first_teid: 100,
    };
    let mut cell = Cell::new(config, subscribers.collect());
    cell.connected();
    (cell, Instant::now())
}

fn says(actions: &[Action]) -> Vec<&Up> {
    let said = actions.iter().filter_map(|action| match action {
        Action::Say(message) => Some(message),
        _ => None,
    });
    said.collect()
}

fn setup() -> Down {
    Down::Setup {
        imsi: imsi(0),
        address: ADDRESS,
        tunnel: sgw(),
    }
}

/// The first device is attached.
fn attached(cell: &mut Cell, now: Instant) {
    cell.due(now);
    cell.heard(&setup(), now);
    cell.heard(&Down::Accepted { imsi: imsi(0) }, now + 5 * MS);
}

#[test]
fn attaches_begin_at_a_rate() {
    let (mut cell, now) = cell(3);
    assert_eq!(says(&cell.due(now)), [&Up::Attach { imsi: imsi(0) }]);
    assert_eq!(cell.due(now + 19 * MS), []);
    assert_eq!(cell.wake(), Some(now + 20 * MS));
    assert_eq!(cell.due(now + 45 * MS).len(), 2, "a late turn is made up for");
    assert_eq!(cell.counts().attaches, 3);
}

#[test]
fn a_device_shows_its_key_and_gets_an_address() {
    let (mut cell, now) = cell(1);
    cell.due(now);
    let vector = key().eps_vector([7; 16], Sqn::new(64));
    let challenge = Down::Challenge {
        imsi: imsi(0),
        rand: Bytes(vector.rand),
        autn: Bytes(vector.autn),
    };
    let answer = cell.heard(&challenge, now);
    let expected = Up::Response {
        imsi: imsi(0),
        res: Bytes(vector.xres),
    };
    assert_eq!(says(&answer), [&expected]);
    let again = cell.heard(&challenge, now);
    assert!(matches!(says(&again)[..], [Up::Failure { auts: Some(_), .. }]));
    let set_up = cell.heard(&setup(), now);
    let add = Action::Add {
        nth: 0,
        address: ADDRESS,
        sgw: sgw(),
        own_teid: 100,
    };
    assert_eq!(set_up[0], add);
    assert_eq!(cell.attached().count(), 0, "not before the MME says so");
    cell.heard(&Down::Accepted { imsi: imsi(0) }, now + 5 * MS);
    assert_eq!(cell.attached().collect::<Vec<_>>(), [(imsi(0).as_str(), ADDRESS)]);
    assert_eq!(cell.counts().attach_us, [5000]);
}

#[test]
fn a_false_network_is_not_answered() {
    let (mut cell, now) = cell(1);
    cell.due(now);
    let challenge = Down::Challenge {
        imsi: imsi(0),
        rand: Bytes([7; 16]),
        autn: Bytes([0; 16]),
    };
    let answer = cell.heard(&challenge, now);
    assert!(matches!(says(&answer)[..], [Up::Failure { auts: None, .. }]));
    assert_eq!(cell.counts().not_authentic, 1);
}

#[test]
fn one_that_was_rejected_or_forgotten_tries_again() {
    let (mut cell, now) = cell(1);
    cell.due(now);
    cell.heard(&setup(), now);
    let rejected = Down::Rejected {
        imsi: imsi(0),
        cause: "gateway_silent".to_owned(),
    };
    assert_eq!(cell.heard(&rejected, now), [Action::Remove(ADDRESS)]);
    assert_eq!(cell.due(now + 9000 * MS), []);
    assert_eq!(says(&cell.due(now + 10_000 * MS)).len(), 1);
    assert_eq!(cell.due(now + 24_000 * MS), []);
    cell.due(now + 25_000 * MS);
    let failures: Vec<_> = cell.counts().failures.iter().collect();
    let expected = [(&"gateway_silent".to_owned(), &1), (&"no_answer".to_owned(), &1)];
    assert_eq!(failures, expected);
}

#[test]
fn an_order_to_come_again_is_followed() {
    let (mut cell, now) = cell(1);
    attached(&mut cell, now);
    assert!(cell.take_changed());
    let order = Down::Detach {
        imsi: imsi(0),
        reattach: true,
    };
    let actions = cell.heard(&order, now);
    assert_eq!(actions[0], Action::Remove(ADDRESS));
    assert!(cell.take_changed() && !cell.take_changed());
    assert_eq!(says(&cell.due(now + 20 * MS)), [&Up::Attach { imsi: imsi(0) }]);
}

#[test]
fn an_idle_device_comes_back_by_its_packets_or_when_it_is_called() {
    let (mut cell, now) = cell(1);
    attached(&mut cell, now);
    assert!(cell.make_idle(&imsi(0), now).is_some());
    let released = cell.heard(&Down::Released { imsi: imsi(0) }, now);
    assert_eq!(released, [Action::Idle(ADDRESS, true)]);
    cell.wanted(0);
    cell.wanted(0);
    let service = cell.due(now + 20 * MS);
    assert!(matches!(says(&service)[..], [Up::Service { .. }]));
    let back = cell.heard(&Down::Accepted { imsi: imsi(0) }, now);
    assert_eq!(back, [Action::Idle(ADDRESS, false)]);
    cell.heard(&Down::Page { imsi: imsi(0) }, now);
    assert_eq!(cell.due(now + 40 * MS), [], "it is there");
}

#[test]
fn when_the_mme_comes_back_devices_say_that_they_are_attached() {
    let (mut cell, now) = cell(2);
    attached(&mut cell, now);
    assert_eq!(cell.disconnected(), [Action::Idle(ADDRESS, true)]);
    assert_eq!(cell.due(now + 100 * MS), []);
    cell.connected();
    let service = cell.due(now + 200 * MS);
    assert!(matches!(says(&service)[0], Up::Service { .. }));
    let forgotten = Down::Rejected {
        imsi: imsi(0),
        cause: "not_attached".to_owned(),
    };
    assert_eq!(cell.heard(&forgotten, now), [Action::Remove(ADDRESS)]);
    let attach = cell.due(now + 300 * MS);
    assert!(says(&attach).contains(&&Up::Attach { imsi: imsi(0) }));
}

#[test]
fn all_leave_at_the_end() {
    let (mut cell, now) = cell(2);
    attached(&mut cell, now);
    cell.leave();
    assert!(!cell.is_empty());
    assert_eq!(says(&cell.due(now + 20 * MS)), [&Up::Detach { imsi: imsi(0) }]);
    let gone = cell.heard(&Down::Detached { imsi: imsi(0) }, now);
    assert_eq!(gone, [Action::Remove(ADDRESS)]);
    assert!(cell.is_empty());
    assert_eq!(cell.due(now + 100 * MS), [], "nobody comes again");
}

#[test]
fn what_is_said_of_strangers_is_counted() {
    let (mut cell, now) = cell(1);
    assert_eq!(cell.heard(&Down::Page { imsi: imsi(9) }, now), []);
    assert_eq!(cell.counts().strangers, 1);
}
