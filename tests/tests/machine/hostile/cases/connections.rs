//! What is done to connections: too many, and what is sent by halves.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use anyhow::Result;
use gantry_tests::api::Api;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use serde_json::json;

use super::{Case, Harm, Process, Tenant};

/// Bodies that are half sent, and the size of each.
const HALVES: usize = 40;
const HALF_BYTES: usize = 2900 << 10;
/// Of them, those for which one user has no room.
const REFUSED: usize = 30;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "300 connections that say nothing",
        kind: "connections",
        protection: "connections",
        attack: strangers,
        told: "the oldest are closed",
        harm: Harm::Told("all stay open"),
    },
    Case {
        name: "handshakes that stay half done",
        kind: "connections",
        protection: "connections",
        attack: half_handshakes,
        told: "50 of 50 closed",
        harm: Harm::Told("0 of 50 closed"),
    },
    Case {
        name: "300 knocks beside one from elsewhere",
        kind: "connections",
        protection: "handshakes",
        attack: knocks,
        told: "the one from elsewhere stays",
        harm: Harm::Told("the one from elsewhere is closed"),
    },
    Case {
        name: "large bodies that are half sent",
        kind: "half-sent bodies",
        protection: "arriving",
        attack: half_sent,
        told: "the others are refused, and another user's is taken",
        harm: Harm::Memory(Process::Orchestrator, 80),
    },
];

/// For one more than 256 whose client is not known, the oldest goes.
fn strangers(tenant: &Tenant<'_>) -> Result<String> {
    let open = |_| TcpStream::connect(tenant.api.address());
    let connections: Vec<TcpStream> = (0..300).map(open).collect::<Result<_, _>>()?;
    std::thread::sleep(Duration::from_secs(2));
    let closed = connections.iter().filter(|c| is_closed(c)).count();
    Ok(match closed {
        0 => "all stay open".to_owned(),
        1..44 => format!("only {closed} are closed"),
        44.. => format!("the oldest are closed: {closed}"),
    })
}

/// The oldest comes from elsewhere: another address of this machine.
fn knocks(tenant: &Tenant<'_>) -> Result<String> {
    let server: SocketAddrV4 = tenant.api.address().parse()?;
    let elsewhere = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(elsewhere.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 2, 0))?;
    connect(elsewhere.as_raw_fd(), &SockaddrIn::from(server))?;
    let elsewhere = TcpStream::from(elsewhere);
    let open = |_| TcpStream::connect(tenant.api.address());
    let connections: Vec<TcpStream> = (0..300).map(open).collect::<Result<_, _>>()?;
    let closed = || connections.iter().filter(|c| is_closed(c)).count();
    tenant.wait("some are closed", || (closed() >= 44).then_some(()))?;
    Ok(match is_closed(&elsewhere) {
        true => "the one from elsewhere is closed".to_owned(),
        false => "the one from elsewhere stays".to_owned(),
    })
}

/// Each without its last bytes; and then an object of the administrator's.
fn half_sent(tenant: &Tenant<'_>) -> Result<String> {
    let path = tenant.path("configmaps");
    let half = format!("{{\"data\":{{\"a\":\"{}", "x".repeat(HALF_BYTES));
    let mut clients = Vec::new();
    for _ in 0..HALVES {
        let mut client = tenant.api.from_afar().command("POST", &path, "");
        client.args(["--header", "Content-Type: application/json", "--upload-file", "-"]);
        // With HTTP/2 curl asks the kernel again and again whether it may go on, and takes the node's CPUs for that.
        client.arg("--http1.1");
        clients.push(client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    }
    let inputs: Vec<_> = clients
        .iter_mut()
        .filter_map(|client| client.stdin.take())
        .collect();
    let open: Vec<_> = std::thread::scope(|scope| {
        let half = half.as_bytes();
        let send = move |mut input: ChildStdin| {
            // One that is refused takes no more.
            let _ = input.write_all(half);
            input
        };
        let sent: Vec<_> = inputs
            .into_iter()
            .map(|input| scope.spawn(move || send(input)))
            .collect();
        sent.into_iter().map(|input| input.join().ok()).collect()
    });
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(200_000)}});
    let taken = Api::of(tenant.gantry)?.post(&path, &large)?;
    drop(open);
    let mut refused = 0;
    for client in clients {
        refused += usize::from(client.wait_with_output()?.stdout.ends_with(b"429"));
    }
    Ok(match (refused, taken.code) {
        (REFUSED.., 201) => "the others are refused, and another user's is taken".to_owned(),
        (refused, code) => format!("{refused} of {HALVES} are refused, another user is told {code}"),
    })
}

/// A handshake may take ten seconds.
fn half_handshakes(tenant: &Tenant<'_>) -> Result<String> {
    let half = |_| {
        let mut connection = TcpStream::connect(tenant.api.address())?;
        // TLS (RFC 8446, 5.1): a handshake record of 512 bytes, of which none comes.
        connection.write_all(&[22, 3, 1, 2, 0])?;
        Ok(connection)
    };
    let connections: Vec<TcpStream> = (0..50).map(half).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs(12));
    let closed = connections.iter().filter(|c| is_closed(c)).count();
    Ok(format!("{closed} of 50 closed"))
}

fn is_closed(mut connection: &TcpStream) -> bool {
    let _ = connection.set_read_timeout(Some(Duration::from_millis(1)));
    matches!(connection.read(&mut [0]), Ok(0))
}
