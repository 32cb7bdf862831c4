use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::issue::Leaf;
use super::*;
use crate::apiserver::NODES;

const CLUSTER: &str = "6f1c8d5e-0000-4000-8000-000000000001";

fn listen() -> SocketAddr {
    "127.0.0.1:6443".parse().unwrap()
}

/// The server's certificate, as clients see it.
fn shown(pki: &Pki) -> CertificateDer<'static> {
    let served = pki.served.0.read().unwrap();
    served.as_ref().unwrap().cert[0].clone()
}

#[test]
fn what_is_near_its_end_is_renewed_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    let node = pki.issuer().issue_node("n1").unwrap();
    let (first, kubeconfig) = (shown(&pki), fs::read(pki.kubeconfig()).unwrap());
    pki.renew().unwrap();
    assert_eq!(shown(&pki), first, "nothing is near its end");
    let Issuer {
        dir: files,
        authority,
    } = pki.issuer();
    let day = time::Duration::days(1);
    let server = Leaf::server(pki.names.clone());
    authority.issue(files, "server", &server, day).unwrap();
    authority
        .issue(files, "admin", &Leaf::client("gantry-admin", MASTERS), day)
        .unwrap();
    let short = Leaf::client("system:node:n1", NODES);
    let short = authority
        .issue(files, "node-n1", &short, day)
        .unwrap()
        .certificate;
    pki.renew().unwrap();
    assert_ne!(shown(&pki), first);
    assert_ne!(fs::read(pki.kubeconfig()).unwrap(), kubeconfig);
    assert_ne!(fs::read_to_string(node.certificate).unwrap(), short);
}

#[test]
fn kept_over_restarts_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    let node = first.issuer().issue_node("n1").unwrap();
    let before = fs::read(&node.certificate).unwrap();
    let second = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    assert_eq!(
        first.issuer.authority.certificate,
        second.issuer.authority.certificate
    );
    assert_eq!(shown(&first), shown(&second));
    assert_eq!(
        fs::read(second.issuer().issue_node("n1").unwrap().certificate).unwrap(),
        before
    );
    second.server_config().unwrap();
    fs::set_permissions(dir.path().join("pki/ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    for entry in fs::read_dir(dir.path().join("pki")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(
        fs::metadata(first.kubeconfig()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(matches!(
        second.issuer().issue_node("../x"),
        Err(PkiError::NodeName(_))
    ));
}

#[test]
fn another_name_or_authority_renews() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    let second = ensure(
        dir.path(),
        listen(),
        &["orchestrator.example".to_owned()],
        CLUSTER,
    )
    .unwrap();
    assert_ne!(shown(&first), shown(&second));
}

/// What is signed by the authority stays good, and the one that it was taken for is still the same.
#[test]
fn a_lost_certificate_of_the_authority_is_made_anew_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    assert_eq!(mark(dir.path()).unwrap(), Mark::Of(CLUSTER.to_owned()));
    for damage in ["", "nonsense"] {
        fs::write(dir.path().join("pki/ca.crt"), damage).unwrap();
        assert_eq!(mark(dir.path()).unwrap(), Mark::Unmarked);
        let second = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
        assert_eq!(shown(&first), shown(&second));
        second.server_config().unwrap();
    }
    assert_eq!(
        Issuer::open(dir.path()).unwrap().cluster().as_deref(),
        Some(CLUSTER)
    );
}

#[test]
fn without_its_key_an_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    let other = tempfile::tempdir().unwrap();
    ensure(other.path(), listen(), &[], CLUSTER).unwrap();
    let key = dir.path().join("pki/ca.key");
    let foreign = fs::read(other.path().join("pki/ca.key")).unwrap();
    for damage in [Some(&b""[..]), Some(b"\xff\xfe"), Some(&foreign), None] {
        match damage {
            Some(bytes) => fs::write(&key, bytes).unwrap(),
            None => fs::remove_file(&key).unwrap(),
        }
        let error = ensure(dir.path(), listen(), &[], CLUSTER)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("ca.key") && error.contains("gantry restore"),
            "{error}"
        );
    }
}

#[test]
fn damaged_and_foreign_certificates_are_issued_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    first.issuer().issue_node("n1").unwrap();
    let other = tempfile::tempdir().unwrap();
    ensure(other.path(), listen(), &[], CLUSTER)
        .unwrap()
        .issuer()
        .issue_node("n1")
        .unwrap();
    for file in [
        "server.crt",
        "server.key",
        "admin.crt",
        "admin.key",
        "node-n1.crt",
        "node-n1.key",
    ] {
        let path = dir.path().join("pki").join(file);
        let foreign = fs::read(other.path().join("pki").join(file)).unwrap();
        for damage in [&b""[..], &foreign[..foreign.len() / 2], b"\xff\xfe", &foreign] {
            fs::write(&path, damage).unwrap();
            let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
            pki.server_config().unwrap();
            pki.issuer().issue_node("n1").unwrap();
            assert_ne!(fs::read(&path).unwrap(), damage, "{file}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
        pki.server_config().unwrap();
        pki.issuer().issue_node("n1").unwrap();
        assert!(path.is_file(), "{file}");
    }
}

#[test]
fn what_is_revoked_is_issued_anew_and_a_damaged_list_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    let certificate = || Issuer::open(dir.path()).unwrap().certificates().unwrap()[0].clone();
    let mut serials = vec![certificate().serial];
    for _ in 0..3 {
        pki.issuer().revoke(&["admin".to_owned()]).unwrap();
        pki.reload().unwrap();
        serials.push(certificate().serial);
        let revoked = pki.revoked().borrow().clone();
        let is: Vec<bool> = serials
            .iter()
            .map(|s| revoked.has(&hex::decode(s).unwrap()))
            .collect();
        assert_eq!(
            is.iter().filter(|is| !**is).count(),
            1,
            "all but the newest: {is:?}"
        );
        assert!(!is[is.len() - 1]);
    }
    let other = tempfile::tempdir().unwrap();
    let stranger = ensure(other.path(), listen(), &[], CLUSTER).unwrap();
    stranger.issuer().revoke(&["admin".to_owned()]).unwrap();
    let lists = ["pki/revoked.crl", "pki/revoked.copy.crl"].map(|file| dir.path().join(file));
    let foreign = fs::read(other.path().join("pki/revoked.crl")).unwrap();
    let own = fs::read(&lists[0]).unwrap();
    for damage in [&b""[..], &own[..own.len() / 2], b"\xff\xfe", &foreign] {
        for list in &lists {
            lists.iter().for_each(|list| fs::write(list, &own).unwrap());
            fs::write(list, damage).unwrap();
            let again = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
            assert!(again.revoked().borrow().has(&hex::decode(&serials[0]).unwrap()));
            fs::remove_file(list).unwrap();
            let again = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
            assert!(again.revoked().borrow().has(&hex::decode(&serials[0]).unwrap()));
        }
        lists.iter().for_each(|list| fs::write(list, damage).unwrap());
        let error = ensure(dir.path(), listen(), &[], CLUSTER).err().unwrap();
        let told = error.to_string();
        assert!(
            told.contains("revoked.") && told.contains("gantry restore"),
            "{told}"
        );
    }
}

/// A day is less than a quarter of a life: such a certificate is renewed at the next occasion.
fn nearly_over(pki: &Pki, file: &str, user: &str) {
    let Issuer { dir, authority } = pki.issuer();
    let leaf = Leaf::client(user, MASTERS);
    authority
        .issue(dir, file, &leaf, time::Duration::days(1))
        .unwrap();
}

#[test]
fn what_a_renewal_replaced_is_listed_and_revoked_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    nearly_over(&pki, "user-bob", "bob");
    pki.issuer().user_kubeconfig("bob", listen()).unwrap();
    let of_bob = || {
        let all = pki.issuer().certificates().unwrap();
        all.into_iter()
            .filter(|c| c.name == "user-bob")
            .collect::<Vec<_>>()
    };
    let before = of_bob();
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(pki.issuer().revoke(&["user-bob".to_owned()]).unwrap().len(), 2);
    pki.reload().unwrap();
    let revoked = pki.revoked().borrow().clone();
    assert!(
        before
            .iter()
            .all(|c| revoked.has(&hex::decode(&c.serial).unwrap()))
    );
    assert!(of_bob().is_empty());
}

#[test]
fn what_has_ended_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    nearly_over(&pki, "user-bob", "bob");
    let Issuer {
        dir: files,
        authority,
    } = pki.issuer();
    let ended = time::Duration::seconds(-1);
    authority
        .issue(files, "user-carol", &Leaf::client("carol", MASTERS), ended)
        .unwrap();
    let ended = fs::read(files.join("user-carol.crt")).unwrap();
    fs::write(files.join("user-carol@00.crt"), ended).unwrap();
    nearly_over(&pki, "user-bob", "bob");
    pki.renew().unwrap();
    let superseded: Vec<String> = files::names(files, "").unwrap();
    let superseded: Vec<&String> = superseded.iter().filter(|name| name.contains('@')).collect();
    assert!(
        superseded.len() == 1 && superseded[0].starts_with("user-bob@"),
        "{superseded:?}"
    );
}

#[test]
fn what_was_revoked_and_issued_since_a_backup_stays() {
    let (now, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = ensure(now.path(), listen(), &[], CLUSTER).unwrap();
    pki.issuer().user_kubeconfig("bob", listen()).unwrap();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to.join(DIR)).unwrap();
        for entry in fs::read_dir(from.join(DIR)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(DIR).join(entry.file_name())).unwrap();
        }
    };
    copy(now.path(), backup.path());
    let bob = pki.issuer().revoke(&["user-bob".to_owned()]).unwrap();
    pki.issuer().user_kubeconfig("carol", listen()).unwrap();
    let since = carry_over(now.path(), backup.path()).unwrap();
    assert_eq!(
        since,
        Since {
            revoked: 1,
            issued: 1
        }
    );
    assert_eq!(
        carry_over(now.path(), backup.path()).unwrap(),
        Since::default(),
        "once"
    );
    let restored = ensure(backup.path(), listen(), &[], CLUSTER).unwrap();
    let serial = hex::decode(&bob[0].serial).unwrap();
    assert!(restored.revoked().borrow().has(&serial));
    let names = restored.issuer().certificates().unwrap();
    let names: Vec<&str> = names.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["admin", "user-carol"]);
    restored.issuer().revoke(&["user-carol".to_owned()]).unwrap();

    let other = tempfile::tempdir().unwrap();
    ensure(other.path(), listen(), &[], CLUSTER).unwrap();
    assert_eq!(
        carry_over(other.path(), backup.path()).unwrap(),
        Since::default(),
        "what another authority signed says nothing"
    );
    for file in ["revoked.crl", "revoked.copy.crl"] {
        fs::write(now.path().join(DIR).join(file), "damage").unwrap();
    }
    let error = carry_over(now.path(), backup.path()).unwrap_err();
    assert!(error.to_string().contains("revoked."), "{error}");
}

#[test]
fn a_user_has_a_certificate_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(dir.path(), listen(), &[], CLUSTER).unwrap();
    let first = pki.issuer().user_kubeconfig("alice", listen()).unwrap();
    assert_eq!(pki.issuer().user_kubeconfig("alice", listen()).unwrap(), first);
    assert!(first.contains("user: alice") && !first.contains("gantry-admin"));
    for bad in ["", "../x", "system:node:n", "Alice"] {
        assert!(matches!(
            pki.issuer().user_kubeconfig(bad, listen()),
            Err(PkiError::UserName(_))
        ));
    }
    for taken in ["gantry-admin", "gantry", "gantry-x"] {
        let error = pki.issuer().user_kubeconfig(taken, listen()).err().unwrap();
        assert!(matches!(error, PkiError::ReservedName(_)), "{error}");
    }
}
