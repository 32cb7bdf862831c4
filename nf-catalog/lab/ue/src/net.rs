//! Devices on sockets: each has an address of its own, and a task that moves its datagrams and its time.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::counts::Counts;
use crate::device::{Card, Config, Device, Plan};
use crate::sip::MAX_BYTES;

/// Milliseconds since the first call, for all devices alike.
pub fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Orders that wait for a device.
const ORDERS: usize = 4;

/// What a device is told to do.
pub enum Order {
    /// Call somebody.
    Call(Plan),
    /// Send a text: whom, and what.
    Message(String, String),
}

/// A device that is there and not switched on.
pub struct Handset {
    device: Device,
    signalling: UdpSocket,
    audio: UdpSocket,
    config: Config,
    orders: mpsc::Receiver<Order>,
}

impl Handset {
    /// Takes its address. Orders for it go to the sender.
    pub async fn new(card: Card, config: Config, run: u64) -> io::Result<(Self, mpsc::Sender<Order>)> {
        let (sender, orders) = mpsc::channel(ORDERS);
        let handset = Self {
            signalling: UdpSocket::bind(config.local).await?,
            audio: UdpSocket::bind(config.audio()).await?,
            device: Device::new(card, config.clone(), run),
            config,
            orders,
        };
        Ok((handset, sender))
    }

    /// Switched on after that time, begins nothing after `quiet`, until `stop`; what it has counted, and how many orders it could
    /// not follow.
    pub async fn live(
        mut self,
        begin: Duration,
        quiet: CancellationToken,
        stop: CancellationToken,
    ) -> (Counts, u64) {
        let (mut message, mut packet) = (vec![0; MAX_BYTES], [0; 2048]);
        let mut refused = 0;
        // Cancel-safe: neither holds anything.
        tokio::select! {
            () = tokio::time::sleep(begin) => self.device.attach(now_ms()),
            () = stop.cancelled() => {}
        }
        let mut is_quiet = false;
        while !stop.is_cancelled() {
            self.send().await;
            let now = now_ms();
            let wake_ms = self
                .device
                .wake_ms(now)
                .map_or(1000, |at_ms| at_ms.saturating_sub(now));
            // Cancel-safe: a datagram that was not received waits in the kernel, an order in its channel, and time passes anyway.
            tokio::select! {
                received = self.signalling.recv_from(&mut message) => {
                    if let Ok((length, _)) = received {
                        self.device.datagram(&message[..length], now_ms());
                    }
                }
                received = self.audio.recv_from(&mut packet) => {
                    if let Ok((length, _)) = received {
                        self.device.audio(&packet[..length], now_ms());
                    }
                }
                Some(order) = self.orders.recv() => {
                    let followed = match order {
                        Order::Call(plan) => self.device.call(plan, now_ms()),
                        Order::Message(to, text) => self.device.message(&to, &text, now_ms()),
                    };
                    refused += u64::from(!followed);
                }
                () = tokio::time::sleep(Duration::from_millis(wake_ms)) => self.device.tick(now_ms()),
                () = quiet.cancelled(), if !is_quiet => {
                    is_quiet = true;
                    self.device.be_quiet();
                }
                () = stop.cancelled() => {}
            }
        }
        (self.device.end(now_ms()), refused)
    }

    /// What cannot be sent is lost, as on any network: its retransmission counts it, and the other end.
    async fn send(&mut self) {
        for datagram in self.device.take() {
            let _ = self.signalling.send_to(&datagram, self.config.proxy).await;
        }
        for (to, packet) in self.device.take_audio() {
            let _ = self.audio.send_to(&packet, to).await;
        }
    }
}
