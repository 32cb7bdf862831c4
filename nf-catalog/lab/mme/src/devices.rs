//! The devices that are remembered, and their eNBs.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::{Arc, MutexGuard, PoisonError};

use gantry_lab_gtp::s11::Session;
use gantry_lab_radio::Down;
use tokio::sync::{Mutex, mpsc};

/// A connected eNB. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Enb {
    /// Which connection, from 0 on.
    pub id: u64,
    /// Where messages go.
    pub out: mpsc::Sender<Down>,
}

impl Enb {
    /// Sends a message; one that has gone needs nothing any more.
    pub async fn say(&self, message: Down) {
        let _ = self.out.send(message).await;
    }
}

/// A session, and where its SGW is.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// As the SGW has told it.
    pub session: Session,
    /// Where to ask.
    pub sgw: SocketAddrV4,
}

/// What is remembered of a device. Whoever does something with it holds it until that is done.
#[derive(Debug)]
pub struct Device {
    /// Who.
    pub imsi: String,
    /// This MME's name for its session.
    pub teid: u32,
    /// Attached if there is one.
    pub held: Option<Held>,
    /// Where it was seen last.
    pub enb: Option<Enb>,
    /// No tunnel leads to its eNB.
    pub idle: bool,
}

/// A device that may be waited for.
pub type Shared = Arc<Mutex<Device>>;

/// See the module.
pub struct Devices {
    known: std::sync::Mutex<Known>,
    most: usize,
    /// TEIDs count from here: another place after a restart, so that old ones name nobody.
    first_teid: u32,
}

#[derive(Default)]
struct Known {
    by_imsi: HashMap<String, usize>,
    all: Vec<Shared>,
}

impl Devices {
    /// None yet, and so many at most.
    pub fn new(most: usize, first_teid: u32) -> Self {
        Self {
            known: std::sync::Mutex::default(),
            most,
            first_teid,
        }
    }

    /// A device, which is new if it was not there; `None` if there are too many.
    pub fn enter(&self, imsi: &str) -> Option<Shared> {
        let mut known = self.lock();
        if let Some(nth) = known.by_imsi.get(imsi) {
            return known.all.get(*nth).cloned();
        }
        let nth = known.all.len();
        if nth >= self.most {
            return None;
        }
        let device = Arc::new(Mutex::new(Device {
            imsi: imsi.to_owned(),
            // 0 names nobody.
            teid: self.first_teid.wrapping_add(u32::try_from(nth).ok()?).max(1),
            held: None,
            enb: None,
            idle: false,
        }));
        known.all.push(device.clone());
        known.by_imsi.insert(imsi.to_owned(), nth);
        Some(device)
    }

    /// A device that is there.
    pub fn by_imsi(&self, imsi: &str) -> Option<Shared> {
        let known = self.lock();
        known.all.get(*known.by_imsi.get(imsi)?).cloned()
    }

    /// By this MME's name for its session.
    pub fn by_teid(&self, teid: u32) -> Option<Shared> {
        let nth = usize::try_from(teid.wrapping_sub(self.first_teid)).ok()?;
        self.lock().all.get(nth).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Shared> {
        self.lock().all.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_both_its_names() {
        let devices = Devices::new(2, 0x10_0000);
        let first = devices.enter("001010000000001").unwrap();
        assert!(Arc::ptr_eq(&first, &devices.enter("001010000000001").unwrap()));
        let second = devices.enter("001010000000002").unwrap();
        let teid = second.try_lock().unwrap().teid;
        assert!(Arc::ptr_eq(&second, &devices.by_teid(teid).unwrap()));
        assert!(devices.by_teid(teid + 1).is_none() && devices.by_teid(0).is_none());
        assert!(devices.by_imsi("001010000000002").is_some());
        assert!(devices.enter("001010000000003").is_none(), "too many");
        assert_eq!(devices.all().len(), 2);
    }
}
