//! `gantry certs` and `gantry kubeconfig`: who may talk to the control plane of this machine.

use anyhow::{Context, Result};
use gantry_orchestrator::pki::{Certificate, Issuer};
use serde_json::{Value, json};

use crate::args::{CertsCommand, Global, Output};
use crate::client::Client;
use crate::output;
use crate::preflight;
use crate::up::daemons;

/// `gantry certs ...`.
pub async fn run(command: &CertsCommand, global: &Global) -> Result<()> {
    preflight::require_root("gantry certs")?;
    match command {
        CertsCommand::List => list(&issuer(global)?.certificates()?, global.output),
        CertsCommand::Revoke { names } => revoke(names, global).await,
    }
}

/// Prints the administrator's kubeconfig, or makes one for a user.
pub fn kubeconfig(user: Option<&str>, global: &Global) -> Result<()> {
    let data_dir = global.data_dir();
    let text = match user {
        None => {
            let path = data_dir.kubeconfig().display().to_string();
            let text = data_dir.read_kubeconfig();
            text.with_context(|| format!("cannot read {path}; `gantry up` writes it"))?
        }
        Some(user) => {
            preflight::require_root("gantry kubeconfig --user")?;
            let settings = data_dir.load_settings()?.context("run `gantry up` first")?;
            let _lock = data_dir.lock()?;
            issuer(global)?.user_kubeconfig(user, settings.listen)?
        }
    };
    output::write_out(&text)
}

fn issuer(global: &Global) -> Result<Issuer> {
    Ok(Issuer::open(global.data_dir().path())?)
}

fn list(certificates: &[Certificate], output: Output) -> Result<()> {
    output::print(output, &certificates, || {
        let rows = certificates.iter().map(|c| {
            let Certificate {
                name,
                subject,
                serial,
                not_after,
            } = c.clone();
            [name, subject, not_after, serial]
        });
        output::table(["NAME", "SUBJECT", "EXPIRES", "SERIAL"], rows)
    })
}

/// All of them, or none if one is not known; then a control plane that runs is told.
async fn revoke(names: &[String], global: &Global) -> Result<()> {
    let data_dir = global.data_dir();
    let _lock = data_dir.lock()?;
    let issuer = issuer(global)?;
    let revoked = issuer.revoke(names)?;
    let [orchestrator, _] = daemons(&data_dir);
    if orchestrator.running().is_some() {
        let client = Client::of_data_dir(&data_dir, &global.namespace).await?;
        let told: Result<Value> = client.post("/gantry/v1/certificates/reload", &json!({})).await;
        told.context("revoked from the next start of the control plane on; it runs and could not be told")?;
    }
    output::print(global.output, &revoked, || {
        let line = |c: &Certificate| format!("revoked {} ({})\n", c.name, c.subject);
        revoked.iter().map(line).collect()
    })
}
