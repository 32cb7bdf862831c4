//! Kernel settings of the calling thread's network namespace.

use std::path::PathBuf;

use crate::error::{CniError, file};

/// Writes `/proc/sys/net/<name>` unless it has the value.
fn set(name: &str, value: &str) -> Result<(), CniError> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    let present = std::fs::read_to_string(&path).map_err(file("read", &path))?;
    if present.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(file("write", &path))
}

/// The host must route between pods' links and the outside.
pub fn enable_forwarding() -> Result<(), CniError> {
    set("ipv4/ip_forward", "1")
}

/// Settings of a host's end: packets from pods arrive here although the route back to them is elsewhere
/// (loose reverse path filter, RFC 3704), and there is no IPv6 on it.
pub fn prepare_link(name: &str) -> Result<(), CniError> {
    set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        set(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    Ok(())
}
