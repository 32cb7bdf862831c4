use super::*;

fn target(container: &str) -> Target {
    Target {
        container: container.into(),
        ifname: "eth0".into(),
    }
}

#[test]
fn addresses_are_given_once_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let net: Ipv4Net = "10.85.0.0/30".parse().unwrap();
    let gateway = Ipv4Addr::new(10, 85, 0, 1);
    let two = Ipv4Addr::new(10, 85, 0, 2);
    assert_eq!(store.reserve(&target("a"), None, &net, gateway).unwrap(), two);
    assert!(matches!(
        store.reserve(&target("b"), None, &net, gateway),
        Err(CniError::NoAddress(_))
    ));
    let taken = store.reserve(&target("b"), Some(two), &net, gateway);
    assert!(matches!(taken, Err(CniError::AddressInUse { .. })));
    assert_eq!(
        store.reserve(&target("a"), Some(two), &net, gateway).unwrap(),
        two
    );
    assert_eq!(store.reserved(&target("a")).unwrap(), [two]);
    store.release(two).unwrap();
    store.release(two).unwrap();
    assert_eq!(store.reserve(&target("b"), None, &net, gateway).unwrap(), two);
}

#[test]
fn what_is_no_directory_is_replaced_by_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("addresses"), "damage").unwrap();
    let store = Store::create(dir.path()).unwrap();
    assert!(store.reserved(&target("a")).unwrap().is_empty());
}

#[test]
fn nothing_of_before_the_boot_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (net, gateway) = ("10.85.0.0/29".parse().unwrap(), Ipv4Addr::new(10, 85, 0, 1));
    let store = Store::create(dir.path()).unwrap();
    let address = store.reserve(&target("a"), None, &net, gateway).unwrap();
    let again = Store::create(dir.path()).unwrap();
    assert_eq!(again.reserved(&target("a")).unwrap(), [address]);
    std::fs::write(store.intent_path(&target("a")), b"").unwrap();
    std::fs::write(dir.path().join(BOOT), b"another").unwrap();
    let rebooted = Store::create(dir.path()).unwrap();
    assert_eq!(
        rebooted.reserved(&target("a")).unwrap(),
        [Ipv4Addr::UNSPECIFIED; 0]
    );
    assert!(!store.intent_path(&target("a")).exists());
    assert_eq!(
        rebooted.reserve(&target("b"), None, &net, gateway).unwrap(),
        address
    );
    assert_eq!(
        Store::create(dir.path()).unwrap().reserved(&target("b")).unwrap(),
        [address]
    );
}

#[test]
fn a_cut_off_reservation_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let (net, gateway) = ("10.85.0.0/29".parse().unwrap(), Ipv4Addr::new(10, 85, 0, 1));
    let address = Ipv4Addr::new(10, 85, 0, 5);
    std::fs::write(store.address_path(address), b"").unwrap();
    let given = store.reserve(&target("a"), Some(address), &net, gateway);
    assert_eq!(given.unwrap(), address);
    assert_eq!(store.reserved(&target("a")).unwrap(), [address]);
}

#[test]
fn a_purge_leaves_what_others_put_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("cni");
    let store = Store::create(&data).unwrap();
    let theirs = data.join("theirs");
    std::fs::write(&theirs, b"").unwrap();
    std::fs::write(data.join(".host.json.7"), b"{").unwrap();
    store.remove_all().unwrap();
    let left: Vec<_> = std::fs::read_dir(&data)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(left, std::slice::from_ref(&theirs));
    std::fs::remove_file(theirs).unwrap();
    store.remove_all().unwrap();
    store.remove_all().unwrap();
    assert!(!data.exists());
}

#[test]
fn a_cut_off_intent_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    std::fs::write(store.intent_path(&target("a")), b"{\"contai").unwrap();
    assert_eq!(store.intent(&target("a")).unwrap(), None);
    store.remove_intent(&target("a")).unwrap();
}
