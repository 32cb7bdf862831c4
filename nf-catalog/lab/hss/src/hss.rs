//! The element: users, what is remembered of them, and the answers to peers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_lab_diameter::codes::{application, command, result};
use gantry_lab_diameter::{Avp, Identity, Message, Peer, Service};

use crate::disk::Disk;
use crate::identity::Users;
use crate::profile::ApplicationServer;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply, common};
use crate::{cx, s6a};

/// Names of the commands that are counted.
pub const COMMANDS: [(u32, &str); 6] = [
    (command::USER_AUTHORIZATION, "UAR"),
    (command::MULTIMEDIA_AUTH, "MAR"),
    (command::SERVER_ASSIGNMENT, "SAR"),
    (command::LOCATION_INFO, "LIR"),
    (command::AUTHENTICATION_INFORMATION, "AIR"),
    (command::UPDATE_LOCATION, "ULR"),
];

/// Requests of a command, and how many of them were refused.
#[derive(Debug, Default)]
pub struct Count {
    /// All.
    pub asked: AtomicU64,
    /// Those.
    pub refused: AtomicU64,
}

/// See the module.
pub struct Hss {
    identity: Identity,
    users: Users,
    registry: Mutex<Registry>,
    disk: Disk,
    application_server: Option<ApplicationServer>,
    counts: [Count; COMMANDS.len()],
}

impl Hss {
    /// With what the disk remembers.
    pub fn new(
        identity: Identity,
        users: Users,
        registry: Registry,
        disk: Disk,
        application_server: Option<ApplicationServer>,
    ) -> Self {
        Self {
            identity,
            users,
            registry: Mutex::new(registry),
            disk,
            application_server,
            counts: Default::default(),
        }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// All subscribers.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// What is remembered. Never held over an await.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is kept.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// For calls and messages of everybody.
    pub fn application_server(&self) -> Option<&ApplicationServer> {
        self.application_server.as_ref()
    }

    /// By command.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &Count)> {
        COMMANDS.iter().map(|(_, name)| *name).zip(&self.counts)
    }

    fn count(&self, command: u32, refused: bool) {
        let known = COMMANDS.iter().position(|(number, _)| *number == command);
        if let Some(count) = known.and_then(|at| self.counts.get(at)) {
            count.asked.fetch_add(1, Ordering::Relaxed);
            count.refused.fetch_add(u64::from(refused), Ordering::Relaxed);
        }
    }

    /// Nothing is answered before it is kept.
    async fn kept(&self, reply: Reply) -> Result<Vec<Avp>, Refusal> {
        if let Some((nth, record)) = reply.record {
            let kept = self.disk.keep(&self.users.get(nth).imsi, &record).await;
            kept.map_err(|error| {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot keep what was asked"
                );
                Refusal::new(result::UNABLE_TO_COMPLY, "the HSS cannot write its state")
            })?;
        }
        Ok(reply.avps)
    }
}

impl Service for Hss {
    async fn answer(&self, request: Message, _from: &Peer) -> Message {
        let application = request.header.application;
        let reply = match application {
            application::CX => cx::answer(self, &request),
            application::S6A => s6a::answer(self, &request),
            _ => None,
        };
        let Some(reply) = reply else {
            return request.unknown(&self.identity);
        };
        let avps = match reply {
            Ok(reply) => self.kept(reply).await,
            Err(refusal) => Err(refusal),
        };
        self.count(request.header.command, avps.is_err());
        let avps = avps.unwrap_or_else(Refusal::into_avps);
        let all = common(application)
            .into_iter()
            .chain(self.identity.origin())
            .chain(avps);
        request.answer(all.collect())
    }
}
