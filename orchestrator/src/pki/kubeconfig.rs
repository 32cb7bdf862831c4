//! The file that kubectl, helm and `gantry` read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::issue::Pair;

/// A kubeconfig with everything embedded.
pub(super) fn render(server: &str, ca: &str, user: &str, client: &Pair) -> String {
    let (ca, certificate, key) = (
        STANDARD.encode(ca),
        STANDARD.encode(&client.certificate),
        STANDARD.encode(&client.key),
    );
    format!(
        "apiVersion: v1
kind: Config
current-context: gantry
clusters:
- name: gantry
  cluster:
    server: https://{server}
    certificate-authority-data: {ca}
contexts:
- name: gantry
  context:
    cluster: gantry
    user: {user}
    namespace: default
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}
