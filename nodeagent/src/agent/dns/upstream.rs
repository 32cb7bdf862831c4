//! The host's own DNS servers, for names that are not the cluster's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer;

const TIMEOUT: Duration = Duration::from_secs(2);
/// Servers that are asked, as resolv.conf(5) has it.
const SERVERS: usize = 3;
/// Longest answer that is read from a datagram, as most servers send them.
const LONGEST_BYTES: usize = 4096;
/// Longest resolv.conf that is read.
const FILE_BYTES: u64 = 64 << 10;

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
    let mut answer = vec![0; LONGEST_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The id: the first two bytes of both.
        if length >= 2 && query.starts_with(&answer[..2]) {
            if length == answer.len() {
                // The rest is cut off: TC (RFC 1035, 4.1.1) says so, and who has asked asks again over TCP.
                answer[2] |= 0x02;
            }
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let message = answer::framed(query).ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(&message).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_too_long_says_that_it_is_cut_off() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        for (length, cut) in [(LONGEST_BYTES - 1, 0), (6000, 0x02)] {
            let answers = async {
                let (_, client) = server.recv_from(&mut [0; 64]).await.unwrap();
                let mut answer = vec![0; length];
                answer[..2].copy_from_slice(&[7, 7]);
                server.send_to(&answer, client).await.unwrap();
            };
            let (answer, ()) = tokio::join!(ask_udp(address, &[7, 7, 1, 0]), answers);
            let answer = answer.unwrap();
            assert_eq!((answer.len(), answer[2]), (length.min(LONGEST_BYTES), cut));
        }
    }
}
