//! The element: users, what is remembered of them, and the answers to peers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_lab_diameter::codes::{application, command, result};
use gantry_lab_diameter::{Avp, Identity, Message, Peer, Service};

use crate::disk::{Disk, DiskError};
use crate::identity::{Nth, Users};
use crate::profile::ApplicationServer;
use crate::registry::{Registry, State};
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

/// A request about a user.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Who is asked.
    pub hss: &'a Hss,
    /// What.
    pub request: &'a Message,
    /// Whom it is about.
    pub nth: Nth,
}

/// What is done at a request, to what is remembered of its user.
pub type Work = fn(&Asked, &mut State) -> Result<Reply, Refusal>;

/// See the module.
pub struct Hss {
    identity: Identity,
    users: Users,
    /// Only what is on the disk.
    registry: Mutex<Registry>,
    /// By user: whoever does something with it holds this until that is on the disk.
    turns: Vec<tokio::sync::Mutex<()>>,
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
        let turns = (0..users.len()).map(|_| tokio::sync::Mutex::default());
        Self {
            turns: turns.collect(),
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

    /// Does something to what is remembered of a user, while nobody else does. It has happened when it is on the disk; what cannot be
    /// kept has not.
    pub async fn change<T>(&self, nth: Nth, work: impl FnOnce(&mut State) -> T) -> Result<T, DiskError> {
        let _turn = self.turns[nth].lock().await;
        let mut state = self.registry().get(nth).clone();
        let before = state.record().clone();
        let done = work(&mut state);
        if *state.record() != before {
            self.disk.keep(&self.users.get(nth).imsi, state.record()).await?;
        }
        self.registry().set(nth, state);
        Ok(done)
    }

    /// The attributes of an answer.
    async fn done(&self, request: &Message, nth: Nth, work: Work) -> Result<Vec<Avp>, Refusal> {
        let asked = Asked {
            hss: self,
            request,
            nth,
        };
        let done = self.change(nth, |state| work(&asked, state)).await;
        let done = done.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot keep what was asked"
            );
            Refusal::new(result::UNABLE_TO_COMPLY, "the HSS cannot write its state")
        })?;
        done.map(Reply::into_avps)
    }

    async fn told(&self, request: &Message) -> Message {
        let (application, command) = (request.header.application, request.header.command);
        let (work, user) = match application {
            application::CX => (cx::work(command), cx::user(self, request)),
            application::S6A => (s6a::work(command), s6a::user(self, request)),
            _ => return request.unknown(&self.identity),
        };
        let Some(work) = work else {
            return request.unknown(&self.identity);
        };
        let avps = match user {
            Ok(nth) => self.done(request, nth, work).await,
            Err(refusal) => Err(refusal),
        };
        self.count(command, avps.is_err());
        let avps = avps.unwrap_or_else(Refusal::into_avps);
        let all = common(application)
            .into_iter()
            .chain(self.identity.origin())
            .chain(avps);
        request.answer(all.collect())
    }
}

impl Service for Hss {
    async fn answer(&self, request: Message, _from: &Peer) -> Message {
        self.told(&request).await
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Duration;

    use gantry_lab_diameter::Avps;
    use gantry_lab_diameter::codes::avp;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::disk::Job;
    use crate::identity::tests::two;

    const SERVER: &str = "sip:a.lab:5060";

    /// One whose disk this test is.
    fn hss() -> (Arc<Hss>, mpsc::Receiver<Job>) {
        let identity = Identity {
            host: "hss.ims.lab".to_owned(),
            realm: "ims.lab".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            product: "test",
            applications: vec![],
        };
        let (disk, jobs) = Disk::with_queue();
        let registry = Registry::new(&two(), vec![SERVER.to_owned()]);
        (Arc::new(Hss::new(identity, two(), registry, disk, None)), jobs)
    }

    fn request(application: u32, command: u32, user: &str) -> Message {
        let avps = vec![
            Avp::text(avp::ORIGIN_HOST, "a.lab"),
            Avp::text(avp::USER_NAME, user),
            Avp::text(avp::SERVER_NAME, SERVER),
            Avp::number(avp::SERVER_ASSIGNMENT_TYPE, 1),
        ];
        Message::request(application, command, avps)
    }

    fn cx(command: u32) -> Message {
        request(application::CX, command, "001010000000001@ims.lab")
    }

    fn ask(hss: &Arc<Hss>, request: Message) -> JoinHandle<Message> {
        let hss = hss.clone();
        tokio::spawn(async move { hss.told(&request).await })
    }

    async fn result_of(answer: JoinHandle<Message>) -> Option<u32> {
        answer.await.unwrap().result()
    }

    /// What is to be written next.
    async fn due(jobs: &mut mpsc::Receiver<Job>) -> Job {
        let due = tokio::time::timeout(Duration::from_secs(5), jobs.recv()).await;
        due.expect("nothing is written").unwrap()
    }

    /// Nothing more happens by itself.
    async fn settled() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    #[tokio::test]
    async fn what_could_not_be_kept_has_not_happened() {
        let (hss, mut jobs) = hss();
        let ulr = request(application::S6A, command::UPDATE_LOCATION, "001010000000001");
        for request in [cx(command::MULTIMEDIA_AUTH), cx(command::SERVER_ASSIGNMENT), ulr] {
            for (kept, code) in [
                (Err(DiskError::Ended), result::UNABLE_TO_COMPLY),
                (Ok(()), result::SUCCESS),
            ] {
                let answer = ask(&hss, request.clone());
                due(&mut jobs).await.done.send(kept).unwrap();
                assert_eq!(result_of(answer).await, Some(code));
            }
            let repeated = ask(&hss, request);
            assert_eq!(
                result_of(repeated).await,
                Some(result::SUCCESS),
                "it is on the disk"
            );
        }
    }

    #[tokio::test]
    async fn names_that_are_too_long_are_not_kept() {
        let (hss, _jobs) = hss();
        let long = "a".repeat(600);
        for code in [avp::ORIGIN_HOST, avp::SERVER_NAME] {
            let mut request = cx(command::SERVER_ASSIGNMENT);
            request.avps.retain(|avp| avp.code != code);
            request.avps.push(Avp::text(code, &long));
            let answer = ask(&hss, request);
            assert_eq!(result_of(answer).await, Some(result::INVALID_AVP_LENGTH));
        }
        assert_eq!(hss.registry().registered(), 0);
    }

    #[tokio::test]
    async fn no_answer_overtakes_the_write_that_it_rests_on() {
        let (hss, mut jobs) = hss();
        let first = ask(&hss, cx(command::MULTIMEDIA_AUTH));
        let write = due(&mut jobs).await;
        let second = ask(&hss, cx(command::MULTIMEDIA_AUTH));
        let other = request(application::S6A, command::UPDATE_LOCATION, "001010000000002");
        let other = ask(&hss, other);
        let others = due(&mut jobs).await;
        assert_eq!(others.imsi, "001010000000002", "another user does not wait");
        others.done.send(Ok(())).unwrap();
        assert_eq!(result_of(other).await, Some(result::SUCCESS));
        settled().await;
        assert!(!first.is_finished() && !second.is_finished());
        write.done.send(Ok(())).unwrap();
        for answer in [first, second] {
            assert_eq!(result_of(answer).await, Some(result::SUCCESS));
        }
        assert!(jobs.try_recv().is_err(), "one reservation is enough for both");
    }

    #[tokio::test]
    async fn what_is_not_yet_kept_is_told_to_nobody_and_written_in_its_order() {
        let (hss, mut jobs) = hss();
        let registered = ask(&hss, cx(command::SERVER_ASSIGNMENT));
        let write = due(&mut jobs).await;
        let released = hss.clone();
        let released = tokio::spawn(async move { released.change(0, State::release).await });
        settled().await;
        assert_eq!(hss.registry().registered(), 0);
        assert!(jobs.try_recv().is_err(), "the first one comes first");
        write.done.send(Ok(())).unwrap();
        assert_eq!(result_of(registered).await, Some(result::SUCCESS));
        assert_eq!(hss.registry().registered(), 1);
        due(&mut jobs).await.done.send(Ok(())).unwrap();
        assert_eq!(released.await.unwrap().unwrap().as_deref(), Some("a.lab"));
        let found = ask(&hss, cx(command::LOCATION_INFO)).await.unwrap();
        assert!(found.avps.find(avp::SERVER_NAME).is_none());
    }
}
