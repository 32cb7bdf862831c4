//! A network of a few lines on the loopback, with faults between it and the devices: a registrar that knows AKA, a proxy, and a relay of
//! audio. Each datagram of either way is shown to the faults as the packet that it would be on a radio.

mod proxy;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_lab_faults::packet::{self, Datagram};
use gantry_lab_faults::{Fate, Faults, Plan, Way};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use proxy::Proxy;

const SIP_PORT: u16 = 5060;
const RELAY_PORT: u16 = 30_000;

/// Both sockets, and what is behind them.
pub struct Network {
    sip: UdpSocket,
    audio: UdpSocket,
    own: Ipv4Addr,
    faults: Mutex<Faults>,
    proxy: Mutex<Proxy>,
}

/// What goes on: to whom, and what.
type Sent = (SocketAddrV4, Vec<u8>);

impl Network {
    /// One at this address.
    pub async fn new(own: Ipv4Addr, subscribers: &str, plan: Plan) -> Arc<Self> {
        let known = gantry_lab_aka::read(subscribers).unwrap();
        let keys: HashMap<_, _> = known.into_iter().map(|s| (s.imsi, s.key)).collect();
        Arc::new(Self {
            sip: UdpSocket::bind((own, SIP_PORT)).await.unwrap(),
            audio: UdpSocket::bind((own, RELAY_PORT)).await.unwrap(),
            own,
            faults: Mutex::new(Faults::new(plan)),
            proxy: Mutex::new(Proxy::new(keys, SocketAddrV4::new(own, RELAY_PORT))),
        })
    }

    /// How often the fault was done.
    pub fn injected(&self) -> u64 {
        self.faults.lock().unwrap().injected()
    }

    /// Goes on until it is aborted.
    pub fn start(self: Arc<Self>) -> JoinHandle<()> {
        let network = self;
        tokio::spawn(async move {
            let (mut message, mut audio) = (vec![0; 65_535], [0; 2048]);
            loop {
                // Cancel-safe: what was not received waits in the kernel.
                let (port, datagram, from) = tokio::select! {
                    Ok((length, from)) = network.sip.recv_from(&mut message) => (SIP_PORT, &message[..length], from),
                    Ok((length, from)) = network.audio.recv_from(&mut audio) => (RELAY_PORT, &audio[..length], from),
                };
                let SocketAddr::V4(from) = from else { continue };
                network.clone().up(from, port, datagram).await;
            }
        })
    }

    /// From a device.
    async fn up(self: Arc<Self>, from: SocketAddrV4, port: u16, datagram: &[u8]) {
        let to = SocketAddrV4::new(self.own, port);
        for (_, datagram) in self.clone().through(Way::Up, from, to, datagram) {
            let answers = match port {
                SIP_PORT => self.proxy.lock().unwrap().take(from, &datagram),
                _ => self.proxy.lock().unwrap().relay(from, &datagram),
            };
            for (device, datagram) in answers {
                for (device, datagram) in self.clone().through(Way::Down, to, device, &datagram) {
                    self.send(port, device, &datagram).await;
                }
            }
        }
    }

    async fn send(&self, port: u16, to: SocketAddrV4, datagram: &[u8]) {
        let socket = if port == SIP_PORT { &self.sip } else { &self.audio };
        let _ = socket.send_to(datagram, to).await;
    }

    /// What comes out of the faults now; what is later comes to a device by itself.
    fn through(self: Arc<Self>, way: Way, from: SocketAddrV4, to: SocketAddrV4, bytes: &[u8]) -> Vec<Sent> {
        let packet = packet::write(from, to, bytes).unwrap();
        let fate = self.faults.lock().unwrap().pass(way, &packet);
        let sent = |packet: &[u8]| {
            let datagram = Datagram::read(packet).unwrap();
            (datagram.destination, datagram.payload.to_vec())
        };
        match fate {
            Fate::Passes => vec![sent(&packet)],
            Fate::Lost => vec![],
            Fate::Twice => vec![sent(&packet), sent(&packet)],
            Fate::Changed(packet) => vec![sent(&packet)],
            Fate::Later(after) => {
                assert_eq!(way, Way::Down, "what is late is audio for a device");
                let (to, datagram) = sent(&packet);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    self.send(from.port(), to, &datagram).await;
                });
                vec![]
            }
        }
    }
}

/// What is wrong, to each so many.
pub fn plan(fault: gantry_lab_faults::Fault, every: u64) -> Plan {
    let delay = Duration::from_millis(200);
    Plan { fault, every, delay }
}
