//! Connections of eNBs: each line goes to the procedure that its device is in, or begins one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_lab_radio::{Down, MAX_LINE_BYTES, Up, is_imsi, line, read};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;

use crate::cause::Cause;
use crate::devices::Enb;
use crate::mme::{Mme, Talk};

/// eNBs at once; those beyond wait in the listener.
const ENBS: usize = 64;
/// After a connection that could not be taken, for want of file descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Messages that wait for an eNB.
const OUT: usize = 1024;
/// Procedures of one eNB at once; devices beyond are rejected.
const PROCEDURES: usize = 1024;
/// Messages of one device that wait.
const HEARD: usize = 4;

/// Takes eNBs until `stop`.
pub async fn serve(mme: Arc<Mme>, listener: TcpListener, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(ENBS));
    for id in 0.. {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        // Cancel-safe: a connection that was not accepted waits in the kernel.
        let (stream, from) = match stop.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot take an eNB's connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (mme, stop) = (mme.clone(), stop.clone());
        tokio::spawn(async move {
            tracing::info!(%from, "eNB connected");
            mme.counts.enbs.fetch_add(1, Ordering::Relaxed);
            let enb = connection(&mme, stream, id, &stop).await;
            mme.counts.enbs.fetch_sub(1, Ordering::Relaxed);
            tracing::info!(%from, "eNB gone");
            mme.enb_gone(&enb).await;
            drop(place);
        });
    }
}

async fn connection(mme: &Arc<Mme>, stream: TcpStream, id: u64, stop: &CancellationToken) -> Enb {
    // Without it an answer may wait for the one before it.
    let _ = stream.set_nodelay(true);
    let (read_half, write_half) = stream.into_split();
    let mut lines = FramedRead::new(read_half, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
    let (out, queue) = mpsc::channel(OUT);
    let writer = tokio::spawn(write_all(write_half, queue));
    let enb = Enb { id, out };
    let mut cell = Cell {
        mme: mme.clone(),
        enb: enb.clone(),
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    loop {
        // Cancel-safe: a framed reader keeps what it has read, the others hold nothing.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = cell.tasks.join_next() => cell.ended(ended.ok()),
            next = lines.next() => match next {
                Some(Ok(text)) => match read::<Up>(&text) {
                    Ok(message) => cell.heard(message).await,
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "an eNB is sent away");
                        break;
                    }
                },
                Some(Err(_)) | None => break,
            },
        }
    }
    // Procedures end by themselves: what they wait for will not come.
    cell.running.clear();
    while cell.tasks.join_next().await.is_some() {}
    writer.abort();
    enb
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Down>) {
    while let Some(message) = queue.recv().await {
        if write.write_all(line(&message).as_bytes()).await.is_err() {
            // The reader sees the end, too.
            return;
        }
    }
}

/// One eNB, and what its devices are in.
struct Cell {
    mme: Arc<Mme>,
    enb: Enb,
    running: HashMap<String, mpsc::Sender<Up>>,
    tasks: JoinSet<String>,
}

impl Cell {
    async fn heard(&mut self, message: Up) {
        let imsi = message.imsi().to_owned();
        if let Some(procedure) = self.running.get(&imsi).filter(|running| !running.is_closed()) {
            // More than a procedure waits for is not of it.
            let _ = procedure.try_send(message);
            return;
        }
        let begins = matches!(
            message,
            Up::Attach { .. } | Up::Detach { .. } | Up::Release { .. } | Up::Service { .. }
        );
        if !begins {
            return;
        }
        if !is_imsi(&imsi) || self.tasks.len() >= PROCEDURES {
            let cause = if is_imsi(&imsi) {
                Cause::Congestion
            } else {
                Cause::UnknownSubscriber
            };
            self.mme.counts.other_failures.add(cause);
            let cause = cause.word().to_owned();
            return self.enb.say(Down::Rejected { imsi, cause }).await;
        }
        let (sender, heard) = mpsc::channel(HEARD);
        let talk = Talk {
            imsi: imsi.clone(),
            enb: self.enb.clone(),
            heard,
        };
        self.running.insert(imsi.clone(), sender);
        let mme = self.mme.clone();
        self.tasks.spawn(async move {
            match message {
                Up::Attach { .. } => mme.attach(talk).await,
                Up::Detach { .. } => mme.detach(talk).await,
                Up::Release { .. } => mme.release(talk).await,
                Up::Service { tunnel, .. } => mme.service(talk, tunnel).await,
                _ => {}
            }
            imsi
        });
    }

    fn ended(&mut self, imsi: Option<String>) {
        // The device may be in another one by now.
        if let Some(imsi) = imsi
            && self.running.get(&imsi).is_some_and(mpsc::Sender::is_closed)
        {
            self.running.remove(&imsi);
        }
    }
}
