//! The host's own DNS servers, for names that are not the cluster's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Servers that are asked, as resolv.conf(5) has it.
const SERVERS: usize = 3;
/// Longest resolv.conf that is read.
const FILE_BYTES: u64 = 64 << 10;

/// So many of something for each source, and so many in all.
pub(super) struct Places {
    each: usize,
    all: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

impl Places {
    pub(super) fn new(each: usize, all: usize) -> Arc<Self> {
        Arc::new(Self {
            each,
            all,
            taken: Mutex::default(),
        })
    }

    pub(super) fn take(self: &Arc<Self>, of: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.all {
            return None;
        }
        let own = taken.entry(of).or_default();
        if *own >= self.each {
            return None;
        }
        *own += 1;
        Some(Place {
            places: self.clone(),
            of,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// `nameserver` lines of the host's resolv.conf; ourselves left out.
pub(super) fn servers(resolv_conf: &Path, own: IpAddr) -> Vec<SocketAddr> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(resolv_conf).and_then(|f| f.take(FILE_BYTES).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::warn!(file = %resolv_conf.display(), %error, "no DNS servers of the host are known");
    }
    let servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses
        .filter(|address| *address != own)
        .map(|address| SocketAddr::new(address, 53))
        .take(SERVERS)
        .collect()
}

/// The answer of the first server that answers.
pub(super) async fn forward(servers: &[SocketAddr], query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let asked = async {
            if tcp {
                ask_tcp(*server, query).await
            } else {
                ask_udp(*server, query).await
            }
        };
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a DNS server does not answer"),
            Err(_) => tracing::debug!(%server, "a DNS server does not answer in time"),
        }
    }
    None
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The id: the first two bytes of both.
        if length >= 2 && query.starts_with(&answer[..2]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_u16(u16::try_from(query.len()).map_err(io::Error::other)?)
        .await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_each_and_for_all() {
        let places = Places::new(2, 3);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held = [places.take(one), places.take(one)];
        assert!(held.iter().all(Option::is_some) && places.take(one).is_none());
        let third = places.take(two);
        assert!(third.is_some() && places.take(two).is_none(), "all are taken");
        drop(held);
        assert!(places.take(two).is_some() && places.taken.lock().unwrap().len() == 1);
    }
}
