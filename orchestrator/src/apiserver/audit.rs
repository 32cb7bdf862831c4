//! Who changed what, and who was refused: a line of JSON a request in `audit.log`. Bounded, and without any content.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::auth::Identity;

/// A file this long becomes `audit.log.1`, in the place of the one before it: so there are at most two.
const LIMIT_BYTES: u64 = 8 << 20;
/// A path longer than this is cut in the log; names are at most 253 bytes each.
const PATH_BYTES: usize = 1024;

/// The log.
pub struct Audit {
    path: PathBuf,
    limit_bytes: u64,
    open: Mutex<Option<(File, u64)>>,
}

impl Audit {
    /// In a data directory.
    pub fn new(data_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: data_dir.join("audit.log"),
            limit_bytes: LIMIT_BYTES,
            open: Mutex::default(),
        })
    }

    /// Appends a line. A log that cannot be written stops no request.
    fn note(&self, line: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut open, line) {
            *open = None;
            tracing::warn!(path = %self.path.display(), %error, "cannot write the audit log");
        }
    }

    fn append(&self, open: &mut Option<(File, u64)>, line: &str) -> io::Result<()> {
        let size = line.len() as u64 + 1;
        if open
            .as_ref()
            .is_some_and(|(_, len)| len + size > self.limit_bytes)
        {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *open = None;
        }
        if open.is_none() {
            let file = File::options()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            let len = file.metadata()?.len();
            *open = Some((file, len));
        }
        if let Some((file, len)) = open {
            file.write_all(format!("{line}\n").as_bytes())?;
            *len += size;
        }
        Ok(())
    }
}

/// Writes, ways into a pod, and whatever was refused for who asked it.
fn is_noted(method: &Method, path: &str, code: StatusCode) -> bool {
    let refused = matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let grpc = path.starts_with(super::auth::NODE_SERVICE);
    let into_a_pod = ["/exec", "/attach", "/portforward"]
        .iter()
        .any(|end| path.ends_with(end));
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    refused || into_a_pod || (!reads && !grpc)
}

/// Notes a request when it is answered.
pub(super) async fn record(State(audit): State<Arc<Audit>>, request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>().cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let code = response.status();
    if is_noted(&method, &path, code) {
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let user = identity.map(|identity| identity.user);
        let path: String = path.chars().take(PATH_BYTES).collect();
        let line = json!({"time": time, "user": user, "method": method.as_str(), "path": path, "code": code.as_u16()});
        audit.note(&line.to_string());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit {
            path: dir.path().join("audit.log"),
            limit_bytes: 1000,
            open: Mutex::default(),
        };
        for n in 0..1000 {
            audit.note(&format!("line {n}"));
        }
        let sizes: Vec<u64> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .collect();
        assert!(
            sizes.len() == 2 && sizes.iter().all(|size| *size <= 1000),
            "{sizes:?}"
        );
        assert!(fs::read_to_string(&audit.path).unwrap().ends_with("line 999\n"));
    }

    #[test]
    fn writes_and_refusals_are_noted_and_reads_are_not() {
        let noted = |method: Method, path: &str, code: u16| {
            is_noted(&method, path, StatusCode::from_u16(code).unwrap())
        };
        assert!(noted(Method::POST, "/api/v1/namespaces/a/pods", 201));
        assert!(noted(Method::DELETE, "/api/v1/namespaces/a/pods/b", 404));
        assert!(noted(Method::GET, "/api/v1/namespaces/a/pods/b/exec", 101));
        assert!(noted(Method::GET, "/api/v1/secrets", 403));
        assert!(!noted(Method::GET, "/api/v1/secrets", 200));
        assert!(!noted(Method::POST, "/gantry.node.v1.NodeService/Attach", 200));
    }
}
