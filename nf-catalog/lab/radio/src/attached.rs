//! The file of those that are attached: lines of `imsi,address`. An eNB writes it, whatever stands for the devices' programs reads it.

use std::net::Ipv4Addr;

use crate::is_imsi;

/// A device that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Who.
    pub imsi: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A line that says something else.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no `imsi,address`")]
pub struct NotAttached {
    /// From 1.
    pub line: usize,
}

/// The lines of a file.
pub fn write_attached<'a>(devices: impl Iterator<Item = (&'a str, Ipv4Addr)>) -> String {
    devices
        .map(|(imsi, address)| format!("{imsi},{address}\n"))
        .collect()
}

/// All of a file. Empty lines say nothing.
pub fn read_attached(text: &str) -> Result<Vec<Attached>, NotAttached> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let said = lines.filter(|(_, text)| !text.is_empty());
    said.map(|(line, text)| attached(text).ok_or(NotAttached { line }))
        .collect()
}

fn attached(line: &str) -> Option<Attached> {
    let (imsi, address) = line.split_once(',')?;
    Some(Attached {
        imsi: is_imsi(imsi).then(|| imsi.to_owned())?,
        address: address.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let address = Ipv4Addr::new(10, 45, 0, 2);
        let text = write_attached([("001010000000001", address)].into_iter());
        assert_eq!(text, "001010000000001,10.45.0.2\n");
        let expected = Attached {
            imsi: "001010000000001".to_owned(),
            address,
        };
        assert_eq!(read_attached(&format!("\n{text}")), Ok(vec![expected]));
        for wrong in ["1,10.45.0.2", "001010000000001", "001010000000001,10.45.0"] {
            assert_eq!(read_attached(wrong), Err(NotAttached { line: 1 }));
        }
    }
}
