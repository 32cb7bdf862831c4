//! Moves lines to and from the MME, time, and orders; and does what the cell says.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gantry_lab_radio::{Down, MAX_LINE_BYTES, line, read, write_attached};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;

use crate::addresses::Addresses;
use crate::cell::{Action, Cell};
use crate::tunnels::Tunnels;

/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);
/// Between two looks at whether the file of devices is still true.
const WRITE: Duration = Duration::from_millis(200);

type Lines = FramedRead<OwnedReadHalf, LinesCodec>;

/// A cell that others look at, too.
pub type Shared = Arc<Mutex<Cell>>;

/// Nobody holds it over an await.
pub fn lock(cell: &Shared) -> MutexGuard<'_, Cell> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The list of those that are attached, as it is written down.
pub fn devices(cell: &Cell) -> String {
    write_attached(cell.attached())
}

/// See the module.
pub struct Shell {
    /// The devices.
    pub cell: Shared,
    /// Shared with the thread that carries.
    pub tunnels: Arc<RwLock<Tunnels>>,
    /// What the tun has.
    pub addresses: Addresses,
    /// The MME, `host:port`.
    pub mme: String,
    /// Where the attached devices are written down.
    pub devices: PathBuf,
    /// Devices that are idle and have packets.
    pub wanted: mpsc::Receiver<usize>,
    /// Devices that are to become idle.
    pub rest: mpsc::Receiver<String>,
    /// How long those that leave may take.
    pub patience: Duration,
}

impl Shell {
    /// Until `stop`, and until all devices have left or have had their time.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let end = CancellationToken::new();
        let last = {
            let (end, patience, cell) = (end.clone(), self.patience, self.cell.clone());
            async move {
                stop.cancelled().await;
                lock(&cell).leave();
                tokio::time::sleep(patience).await;
                end.cancel();
            }
        };
        let last = tokio::spawn(last);
        while !end.is_cancelled() && !lock(&self.cell).is_empty() {
            match TcpStream::connect(&self.mme).await {
                Ok(stream) => {
                    tracing::info!(mme = self.mme, "connected");
                    self.connected(stream, &end).await?;
                    let actions = lock(&self.cell).disconnected();
                    self.apply(actions, None).await?;
                    tracing::info!(mme = self.mme, "disconnected");
                }
                Err(error) => tracing::debug!(mme = self.mme, %error, "cannot connect"),
            }
            self.write_devices()?;
            if lock(&self.cell).is_empty() {
                break;
            }
            // Cancel-safe: neither holds anything.
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
        last.abort();
        Ok(())
    }

    async fn connected(&mut self, stream: TcpStream, end: &CancellationToken) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let (read_half, mut write) = stream.into_split();
        let mut lines: Lines = FramedRead::new(read_half, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
        let mut tick = tokio::time::interval(WRITE);
        lock(&self.cell).connected();
        loop {
            let (actions, wake, left) = {
                let mut cell = lock(&self.cell);
                (cell.due(Instant::now()), cell.wake(), cell.is_empty())
            };
            if left || !self.apply(actions, Some(&mut write)).await? {
                return Ok(());
            }
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: a framed reader keeps what it has read, orders wait in their channels, and time passes anyway.
            let actions = tokio::select! {
                () = end.cancelled() => return Ok(()),
                () = sleep => Vec::new(),
                _ = tick.tick() => {
                    self.write_devices()?;
                    Vec::new()
                }
                Some(nth) = self.wanted.recv() => {
                    lock(&self.cell).wanted(nth);
                    Vec::new()
                }
                Some(imsi) = self.rest.recv() => {
                    lock(&self.cell).make_idle(&imsi, Instant::now()).into_iter().collect()
                }
                next = lines.next() => match next.map(|text| text.map(|text| read::<Down>(&text))) {
                    Some(Ok(Ok(message))) => lock(&self.cell).heard(&message, Instant::now()),
                    Some(Ok(Err(error))) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the MME is left");
                        return Ok(());
                    }
                    Some(Err(_)) | None => return Ok(()),
                },
            };
            if !self.apply(actions, Some(&mut write)).await? {
                return Ok(());
            }
        }
    }

    /// Does it; whether the MME is still there.
    async fn apply(
        &mut self,
        actions: Vec<Action>,
        mut mme: Option<&mut OwnedWriteHalf>,
    ) -> io::Result<bool> {
        for action in actions {
            match action {
                Action::Say(message) => {
                    if let Some(mme) = mme.as_mut()
                        && mme.write_all(line(&message).as_bytes()).await.is_err()
                    {
                        return Ok(false);
                    }
                }
                Action::Add {
                    nth,
                    address,
                    sgw,
                    own_teid,
                } => {
                    self.tunnels().add(nth, address, sgw, own_teid);
                    self.addresses.add(address)?;
                }
                Action::Remove(address) => {
                    self.tunnels().remove(address);
                    self.addresses.remove(address)?;
                }
                Action::Idle(address, idle) => self.tunnels().set_idle(address, idle),
            }
        }
        Ok(true)
    }

    fn tunnels(&self) -> std::sync::RwLockWriteGuard<'_, Tunnels> {
        self.tunnels.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_devices(&self) -> anyhow::Result<()> {
        let text = {
            let mut cell = lock(&self.cell);
            if !cell.take_changed() {
                return Ok(());
            }
            devices(&cell)
        };
        replace(&self.devices, &text)
    }
}

/// Writes a file that is never seen half.
pub fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    let beside = path.with_added_extension("new");
    let written = (|| {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&beside, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("devices.csv");
        for text in ["1,10.45.0.2\n", ""] {
            replace(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
