//! Connections whose client is not known yet. There is room for so many; for one more, one goes of the address that has most,
//! and of those the one that has kept us waiting longest. Whoever waits for us stays: how fast we are is not its doing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// All of them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Strangers {
    most: usize,
    fair: bool,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    next: u64,
    /// In the order in which they came.
    knocks: BTreeMap<u64, Knock>,
}

struct Knock {
    from: IpAddr,
    /// To look into; `None` where no file can be had.
    socket: Option<OwnedFd>,
    /// Since when we wait for what it says next; `None` while it waits for us.
    quiet_since: Option<Instant>,
    pushed_out: CancellationToken,
}

/// One of them, until it is dropped.
pub(super) struct Stranger {
    strangers: Strangers,
    /// In the order in which connections are accepted.
    pub number: u64,
    /// Ends it.
    pub pushed_out: CancellationToken,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.lock().knocks.remove(&self.number);
    }
}

impl Strangers {
    /// None yet. Without fairness the oldest goes, whoever it is.
    pub fn new(most: usize, fair: bool) -> Self {
        Self {
            most,
            fair,
            books: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; another goes if these are too many.
    pub fn come(&self, stream: &TcpStream, from: IpAddr) -> Stranger {
        let pushed_out = CancellationToken::new();
        let mut books = self.lock();
        if books.knocks.len() >= self.most {
            let who = match self.fair {
                true => books.who_goes(has_said),
                false => books.knocks.keys().next().copied(),
            };
            if let Some(knock) = who.and_then(|number| books.knocks.remove(&number)) {
                knock.pushed_out.cancel();
            }
        }
        let number = books.next;
        books.next += 1;
        let knock = Knock {
            from: neighbourhood(from),
            socket: stream.as_fd().try_clone_to_owned().ok(),
            quiet_since: None,
            pushed_out: pushed_out.clone(),
        };
        books.knocks.insert(number, knock);
        drop(books);
        Stranger {
            strangers: self.clone(),
            number,
            pushed_out,
        }
    }
}

impl Stranger {
    /// The handshake; it is noted when that waits for the other side.
    pub async fn shakes<F: Future>(&self, handshake: F) -> F::Output {
        let mut handshake = std::pin::pin!(handshake);
        std::future::poll_fn(|cx| {
            let polled = handshake.as_mut().poll(cx);
            if polled.is_pending()
                && let Some(knock) = self.strangers.lock().knocks.get_mut(&self.number)
            {
                knock.quiet_since = Some(Instant::now());
            }
            polled
        })
        .await
    }
}

/// Whoever has one address of IPv6 has all of its network (RFC 4291: 64 bits).
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four => four,
    }
}

/// Whether something that it sent waits to be read by us.
fn has_said(knock: &Knock) -> bool {
    let look = |socket| recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    knock
        .socket
        .as_ref()
        .is_some_and(|socket| look(socket).is_ok_and(|(bytes, _)| bytes > 0))
}

impl Books {
    fn who_goes(&self, has_said: impl Fn(&Knock) -> bool) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for knock in self.knocks.values() {
            *counts.entry(knock.from).or_default() += 1;
        }
        let mut all: Vec<_> = self.knocks.iter().collect();
        all.sort_by_key(|(_, k)| (Reverse(counts[&k.from]), k.quiet_since.is_none(), k.quiet_since));
        let most = all.first().map(|(_, k)| counts[&k.from])?;
        let of_most = || all.iter().take_while(|(_, k)| counts[&k.from] == most);
        let quiet = of_most().find(|(_, k)| k.quiet_since.is_some() && !has_said(k));
        quiet.or_else(|| of_most().next()).map(|(number, _)| **number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Address, and for how many milliseconds it has been quiet.
    fn books(knocks: &[(&str, Option<u64>)]) -> Books {
        let now = Instant::now() + Duration::from_secs(3600);
        let knock = |(from, quiet_ms): &(&str, Option<u64>)| Knock {
            from: neighbourhood(from.parse().unwrap()),
            socket: None,
            quiet_since: quiet_ms.map(|ms| now - Duration::from_millis(ms)),
            pushed_out: CancellationToken::new(),
        };
        Books {
            next: 0,
            knocks: (0..).zip(knocks.iter().map(knock)).collect(),
        }
    }

    #[test]
    fn the_address_with_most_loses_the_one_that_has_been_quiet_longest() {
        let nobody = |_: &Knock| false;
        let (honest, flood) = ("10.0.0.1", "10.0.0.2");
        let all = books(&[
            (honest, Some(900)),
            (flood, None),
            (flood, Some(3)),
            (flood, Some(5)),
        ]);
        assert_eq!(all.who_goes(nobody), Some(3));
        // What it said is not read yet: it waits for us, as the one does that was just accepted.
        let longest = all.knocks[&3].quiet_since;
        assert_eq!(all.who_goes(|knock| knock.quiet_since == longest), Some(2));
        assert_eq!(all.who_goes(|_| true), Some(3), "one has to go");
        // All addresses of one IPv6 network are one; where none has most, the longest quiet goes.
        let six = [
            (honest, Some(9)),
            ("fd00::1", Some(1)),
            ("fd00::2:0:0:2", Some(2)),
        ];
        assert_eq!(books(&six).who_goes(nobody), Some(2));
        assert_eq!(
            books(&[(honest, Some(1)), (flood, Some(2))]).who_goes(nobody),
            Some(1)
        );
    }

    #[tokio::test]
    async fn what_waits_to_be_read_is_seen_and_who_is_waited_for_is_known() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let strangers = Strangers::new(1, true);
        let stranger = strangers.come(&stream, peer.ip());
        let sees = || has_said(&strangers.lock().knocks[&0]);
        assert!(!sees());
        tokio::io::AsyncWriteExt::write_all(&mut client, b"x")
            .await
            .unwrap();
        stream.readable().await.unwrap();
        assert!(sees());
        let never = tokio::time::timeout(Duration::ZERO, stranger.shakes(std::future::pending::<()>()));
        assert!(never.await.is_err() && strangers.lock().knocks[&0].quiet_since.is_some());
        let _second = strangers.come(&stream, peer.ip());
        assert!(stranger.pushed_out.is_cancelled());
    }
}
