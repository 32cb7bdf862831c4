//! The server's sockets. The address may not be on a device yet, or be away for a moment: `IP_FREEBIND`, ip(7).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Sockets that share the address: a source's questions all wait at one of them, so that a flood pushes out only its own, and
/// those of every sixteenth neighbour.
const SOCKETS: u32 = 16;
/// Bytes of questions that wait at one.
const RECEIVE_BYTES: usize = 1 << 20;
const BACKLOG: u32 = 128;

/// The UDP sockets; questions come to each of them.
pub(super) fn udp(address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let fd = one_udp(address)?;
        if sockets.is_empty() {
            // Without it the kernel chooses by the whole flow: less apart, and just as good otherwise.
            if let Err(error) = choose_by_source(&fd, address.is_ipv4()) {
                tracing::warn!(%error, "DNS questions are not told apart by their source before they are read");
            }
        }
        sockets.push(UdpSocket::from_std(fd.into())?);
    }
    Ok(sockets)
}

fn one_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    // Without CAP_NET_ADMIN only as far as the system's limit.
    if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BYTES)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// `SO_ATTACH_REUSEPORT_CBPF`, socket(7): the number of the socket is the (last four bytes of the) source address modulo
/// their count.
fn choose_by_source(fd: &OwnedFd, is_ipv4: bool) -> io::Result<()> {
    // `SKF_NET_OFF` of linux/filter.h: offsets from here on are into the IP header.
    const NETWORK_HEADER: i32 = -0x10_0000;
    let source = NETWORK_HEADER + if is_ipv4 { 12 } else { 20 };
    let operation = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        operation(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, source.cast_unsigned()),
        operation(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, SOCKETS),
        operation(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads one sock_fprog of the size given, and the three operations that it points to; both live until
    // the call returns.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
