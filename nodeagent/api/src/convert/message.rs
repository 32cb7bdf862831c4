//! The frames of the streams.

use super::{At, InvalidMessage, port, required};
use crate::{
    AgentMessage, Generation, OpenSession, OrchestratorMessage, Refused, SessionFrame, SessionKind, proto,
};

impl From<&AgentMessage> for proto::AgentMessage {
    fn from(m: &AgentMessage) -> Self {
        use proto::agent_message::Kind;
        let kind = match m {
            AgentMessage::Hello(hello) => Kind::Hello(hello.into()),
            AgentMessage::Status(status) => Kind::Status(status.into()),
            AgentMessage::Refused(r) => Kind::Refused(proto::Refused {
                generation: r.generation.0,
                reason: r.reason.clone(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::AgentMessage> for AgentMessage {
    type Error = InvalidMessage;

    fn try_from(w: proto::AgentMessage) -> Result<Self, InvalidMessage> {
        use proto::agent_message::Kind;
        Ok(match required("kind", w.kind)? {
            Kind::Hello(hello) => Self::Hello(hello.try_into().at("hello")?),
            Kind::Status(status) => Self::Status(status.try_into().at("status")?),
            Kind::Refused(r) => Self::Refused(Refused {
                generation: Generation(r.generation),
                reason: r.reason,
            }),
        })
    }
}

impl From<&OrchestratorMessage> for proto::OrchestratorMessage {
    fn from(m: &OrchestratorMessage) -> Self {
        use proto::orchestrator_message::Kind;
        let kind = match m {
            OrchestratorMessage::Config(config) => Kind::Config(config.into()),
            OrchestratorMessage::OpenSession(open) => Kind::OpenSession(open.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::OrchestratorMessage> for OrchestratorMessage {
    type Error = InvalidMessage;

    fn try_from(w: proto::OrchestratorMessage) -> Result<Self, InvalidMessage> {
        use proto::orchestrator_message::Kind;
        Ok(match required("kind", w.kind)? {
            Kind::Config(config) => Self::Config(config.try_into().at("config")?),
            Kind::OpenSession(open) => Self::OpenSession(open.try_into().at("openSession")?),
        })
    }
}

impl From<&OpenSession> for proto::OpenSession {
    fn from(m: &OpenSession) -> Self {
        use proto::open_session::{Exec, Kind, Logs, PortForward, Usage};
        let kind = match m.kind.clone() {
            SessionKind::Logs {
                pod,
                container,
                follow,
                tail_lines,
                previous,
                since_ms,
                stream,
                timestamps,
            } => Kind::Logs(Logs {
                pod,
                container,
                follow,
                tail_lines,
                previous,
                since_ms,
                stream,
                timestamps,
            }),
            SessionKind::Exec {
                pod,
                container,
                argv,
                tty,
                stdin,
            } => Kind::Exec(Exec {
                pod,
                container,
                argv,
                tty,
                stdin,
            }),
            SessionKind::PortForward { pod, port } => Kind::PortForward(PortForward {
                pod,
                port: port.into(),
            }),
            SessionKind::Usage => Kind::Usage(Usage {}),
        };
        Self {
            id: m.id.clone(),
            kind: Some(kind),
        }
    }
}

impl TryFrom<proto::OpenSession> for OpenSession {
    type Error = InvalidMessage;

    fn try_from(w: proto::OpenSession) -> Result<Self, InvalidMessage> {
        use proto::open_session::{Exec, Kind, Logs};
        let kind = match required("kind", w.kind)? {
            Kind::Logs(Logs {
                pod,
                container,
                follow,
                tail_lines,
                previous,
                since_ms,
                stream,
                timestamps,
            }) => SessionKind::Logs {
                pod,
                container,
                follow,
                tail_lines,
                previous,
                since_ms,
                stream,
                timestamps,
            },
            Kind::Exec(Exec {
                pod,
                container,
                argv,
                tty,
                stdin,
            }) => {
                if argv.is_empty() {
                    return Err(InvalidMessage::new("argv", "missing"));
                }
                SessionKind::Exec {
                    pod,
                    container,
                    argv,
                    tty,
                    stdin,
                }
            }
            Kind::PortForward(p) => SessionKind::PortForward {
                pod: p.pod,
                port: port("port", p.port)?,
            },
            Kind::Usage(_) => SessionKind::Usage,
        };
        Ok(Self { id: w.id, kind })
    }
}

impl From<SessionFrame> for proto::SessionFrame {
    fn from(m: SessionFrame) -> Self {
        use proto::session_frame::{Eof, Kind, Resize};
        let kind = match m {
            SessionFrame::Open(id) => Kind::Open(id),
            SessionFrame::Stdin(data) => Kind::Stdin(data),
            SessionFrame::StdinEof => Kind::StdinEof(Eof {}),
            SessionFrame::Stdout(data) => Kind::Stdout(data),
            SessionFrame::Stderr(data) => Kind::Stderr(data),
            SessionFrame::Resize { columns, rows } => Kind::Resize(Resize {
                columns: columns.into(),
                rows: rows.into(),
            }),
            SessionFrame::Error(text) => Kind::Error(text),
            SessionFrame::Exit(code) => Kind::Exit(code),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::SessionFrame> for SessionFrame {
    type Error = InvalidMessage;

    fn try_from(w: proto::SessionFrame) -> Result<Self, InvalidMessage> {
        use proto::session_frame::Kind;
        let cells = |path, n: u32| u16::try_from(n).map_err(|e| InvalidMessage::new(path, e));
        Ok(match required("kind", w.kind)? {
            Kind::Open(id) => Self::Open(id),
            Kind::Stdin(data) => Self::Stdin(data),
            Kind::StdinEof(_) => Self::StdinEof,
            Kind::Stdout(data) => Self::Stdout(data),
            Kind::Stderr(data) => Self::Stderr(data),
            Kind::Resize(r) => Self::Resize {
                columns: cells("columns", r.columns)?,
                rows: cells("rows", r.rows)?,
            },
            Kind::Error(text) => Self::Error(text),
            Kind::Exit(code) => Self::Exit(code),
        })
    }
}
