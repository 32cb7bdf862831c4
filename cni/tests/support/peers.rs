//! Small servers and clients inside namespaces. Servers answer with their name, so that clients see who
//! they reached, and at which address the server saw them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::netns::Netns;
use super::wait_until;

/// How long an answer may take before it counts as lost.
pub const ANSWER: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// A server that ends with the value.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Answers UDP datagrams and TCP lines on one port with "<name> <client> <length>".
pub fn serve(ns: &Netns, name: &str, port: u16) -> Server {
    let stop = Arc::new(AtomicBool::new(false));
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let (udp, tcp) = ns.run(|| {
        let udp = once_free(|| UdpSocket::bind(any));
        (udp, once_free(|| TcpListener::bind(any)))
    });
    let name = name.to_owned();
    let threads = vec![
        std::thread::spawn({
            let (stop, name) = (stop.clone(), name.clone());
            move || answer_udp(&udp, &name, &stop)
        }),
        std::thread::spawn({
            let stop = stop.clone();
            move || answer_tcp(&tcp, &name, &stop)
        }),
    ];
    Server { stop, threads }
}

/// Binds, also where a socket that was just closed had the port: a child that another test of this
/// process begins holds a copy of it until it executes its program.
fn once_free<T>(mut bind: impl FnMut() -> std::io::Result<T>) -> T {
    let mut socket = None;
    wait_until("the port is free", || match bind() {
        Ok(bound) => {
            socket = Some(bound);
            true
        }
        Err(e) if e.kind() == ErrorKind::AddrInUse => false,
        Err(e) => panic!("cannot bind: {e}"),
    });
    socket.unwrap()
}

fn answer_udp(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    socket.set_read_timeout(Some(POLL)).unwrap();
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{name} {from} {length} ").into_bytes();
            // As long as the question: both directions are fragmented or neither.
            answer.resize(answer.len().max(length), b'.');
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer_tcp(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    let mut open: Vec<(TcpStream, SocketAddr)> = Vec::new();
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, from)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            open.push((stream, from));
        }
        open.retain_mut(|(stream, from)| match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => stream
                .write_all(format!("{name} {from} {length}\n").as_bytes())
                .is_ok(),
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        });
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A bound UDP client inside a namespace.
pub fn udp_client(ns: &Netns, bind: SocketAddrV4) -> UdpSocket {
    let socket = ns.run(|| once_free(|| UdpSocket::bind(bind)));
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    socket
}

/// Sends and waits: who answered (first word), what they saw (second), from where the answer came.
pub fn ask(socket: &UdpSocket, to: (Ipv4Addr, u16), length: usize) -> Option<(String, String, SocketAddr)> {
    socket.send_to(&vec![b'x'; length], to).ok()?;
    let mut buffer = [0; 65_536];
    let (received, from) = socket.recv_from(&mut buffer).ok()?;
    let (name, seen) = words(&buffer[..received]);
    Some((name, seen, from))
}

/// Opens a TCP connection from inside a namespace.
pub fn connect(ns: &Netns, to: (Ipv4Addr, u16)) -> std::io::Result<TcpStream> {
    let stream = ns.run(|| TcpStream::connect_timeout(&SocketAddr::from(to), ANSWER))?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Sends a line over a connection and returns who answered and what they saw.
pub fn talk(stream: &mut TcpStream) -> std::io::Result<(String, String)> {
    stream.write_all(b"hello\n")?;
    let mut buffer = [0; 256];
    let length = stream.read(&mut buffer)?;
    if length == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(words(&buffer[..length]))
}

fn words(bytes: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_whitespace().map(str::to_owned);
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}
