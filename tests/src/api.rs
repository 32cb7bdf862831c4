//! The API as the administrator or a tenant has it: whole requests, by `curl`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::gantry::Gantry;

/// Seconds after which an answer is no answer.
const PATIENCE_S: &str = "30";

/// A Gantry's API.
#[derive(Clone)]
pub struct Api {
    pki: PathBuf,
    server: String,
    /// Whose certificate is shown.
    certificate: String,
    /// Of its clients: 0 as this process, 19 after all others.
    nice: &'static str,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status; 0 without an answer.
    pub code: u16,
    /// The body, JSON or text.
    pub body: String,
}

impl Answer {
    /// The body as JSON, `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Api {
    /// Of a Gantry that is up.
    pub fn of(gantry: &Gantry) -> Result<Self> {
        let kubeconfig = std::fs::read_to_string(gantry.path().join("kubeconfig"))
            .context("the Gantry has no kubeconfig")?;
        let server = kubeconfig
            .lines()
            .find_map(|line| line.split_once("server:"))
            .map(|(_, url)| url.trim().trim_matches('"').to_owned());
        Ok(Self {
            pki: gantry.path().join("pki"),
            server: server.context("the kubeconfig names no server")?,
            certificate: "admin".to_owned(),
            nice: "0",
        })
    }

    /// The same as a user with a certificate of their own.
    pub fn of_user(gantry: &Gantry, name: &str) -> Result<Self> {
        // What it prints has the key in it.
        gantry.text(&["kubeconfig", "--user", name])?;
        Ok(Self {
            certificate: format!("user-{name}"),
            ..Self::of(gantry)?
        })
    }

    /// The same from another machine, as far as that can be had on this one: the clients take no CPU from those whom they ask.
    pub fn from_afar(&self) -> Self {
        Self {
            nice: "19",
            ..self.clone()
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.server.trim_start_matches("https://")
    }

    /// Where authority, certificates and keys are.
    fn file(&self, name: &str) -> PathBuf {
        self.pki.join(name)
    }

    fn curl(&self) -> Command {
        let mut command = Command::new("nice");
        command.args(["-n", self.nice, "curl"]);
        command
    }

    /// A command that asks; its body comes from standard input, if it has one.
    pub fn command(&self, method: &str, path: &str, media: &str) -> Command {
        let mut command = self.curl();
        command
            .args(["--silent", "--max-time", PATIENCE_S, "--request", method])
            .arg("--cacert")
            .arg(self.file("ca.crt"))
            .arg("--cert")
            .arg(self.file(&format!("{}.crt", self.certificate)))
            .arg("--key")
            .arg(self.file(&format!("{}.key", self.certificate)))
            .args(["--write-out", "\n%{http_code}"])
            .arg(format!("{}{path}", self.server));
        if !media.is_empty() {
            command
                .arg("--header")
                .arg(format!("Content-Type: {media}"))
                .args(["--data-binary", "@-"]);
        }
        command
    }

    /// Asks once.
    pub fn ask(&self, method: &str, path: &str, media: &str, body: &str) -> Result<Answer> {
        let mut child = self
            .command(method, path, media)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run curl")?;
        let mut input = child.stdin.take().context("curl has no input")?;
        // Who answers before all was sent closes it.
        let _ = input.write_all(body.as_bytes());
        drop(input);
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
        Ok(Answer {
            code: code.parse().unwrap_or(0),
            body: body.to_owned(),
        })
    }

    /// Makes many objects, some at once; the status of each answer.
    pub fn post_many(&self, path: &str, objects: &[Value]) -> Result<Vec<u16>> {
        let mut codes = Vec::new();
        for some in objects.chunks(1000) {
            let transfers: Vec<String> = some.iter().map(|object| self.transfer(path, object)).collect();
            let mut child = self
                .curl()
                .args([
                    "--no-progress-meter",
                    "--parallel",
                    "--parallel-max",
                    "16",
                    "--config",
                    "-",
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run curl")?;
            let mut input = child.stdin.take().context("curl has no input")?;
            input.write_all(transfers.join("next\n").as_bytes())?;
            drop(input);
            let output = child.wait_with_output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            codes.extend(text.lines().map(|code| code.parse().unwrap_or(0)));
        }
        Ok(codes)
    }

    /// One POST, in the words of curl's configuration.
    fn transfer(&self, path: &str, object: &Value) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        let own = |suffix: &str| file(&format!("{}.{suffix}", self.certificate));
        let body = object.to_string();
        let options = [
            ("url", format!("{}{path}", self.server)),
            ("cacert", file("ca.crt")),
            ("cert", own("crt")),
            ("key", own("key")),
            ("max-time", PATIENCE_S.to_owned()),
            ("header", "Content-Type: application/json".to_owned()),
            ("output", "/dev/null".to_owned()),
            ("write-out", "%{http_code}\n".to_owned()),
            ("data-binary", body),
        ];
        let quoted = |text: &str| {
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        options
            .iter()
            .map(|(name, value)| format!("{name} = \"{}\"\n", quoted(value)))
            .collect()
    }

    /// Reads an object or a list.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, "", "")
    }

    /// Makes an object.
    pub fn post(&self, path: &str, object: &Value) -> Result<Answer> {
        self.ask("POST", path, "application/json", &object.to_string())
    }

    /// Makes an object that must be taken.
    pub fn make(&self, path: &str, object: &Value) -> Result<()> {
        let answer = self.post(path, object)?;
        ensure!(answer.code == 201, "{path}: {} {}", answer.code, answer.body);
        Ok(())
    }
}
