use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn listen() -> SocketAddr {
    "127.0.0.1:6443".parse().unwrap()
}

#[test]
fn kept_over_restarts_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), listen(), &[]).unwrap();
    let node = first.issue_node("n1").unwrap();
    let before = fs::read(&node.certificate).unwrap();
    let second = ensure(dir.path(), listen(), &[]).unwrap();
    assert_eq!(first.authority.certificate, second.authority.certificate);
    assert_eq!(first.server.certificate, second.server.certificate);
    assert_eq!(
        fs::read(second.issue_node("n1").unwrap().certificate).unwrap(),
        before
    );
    second.server_config().unwrap();
    for entry in fs::read_dir(dir.path().join("pki")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(
        fs::metadata(first.kubeconfig()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(matches!(second.issue_node("../x"), Err(PkiError::NodeName(_))));
}

#[test]
fn another_name_or_authority_renews() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), listen(), &[]).unwrap();
    let second = ensure(dir.path(), listen(), &["orchestrator.example".to_owned()]).unwrap();
    assert_ne!(first.server.certificate, second.server.certificate);
    fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
    let third = ensure(dir.path(), listen(), &[]).unwrap();
    assert_ne!(second.authority.certificate, third.authority.certificate);
    assert_ne!(second.server.certificate, third.server.certificate);
    third.server_config().unwrap();
}
