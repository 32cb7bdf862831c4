//! The file in which subscribers are written down: a line each, `imsi,msisdn,k,opc`, below a line that says so.

use crate::Key;

const HEAD: &str = "imsi,msisdn,k,opc";

/// Who has a card.
#[derive(Clone)]
pub struct Subscriber {
    /// Digits.
    pub imsi: String,
    /// Digits, without a plus.
    pub msisdn: String,
    /// What the card knows.
    pub key: Key,
}

/// What is wrong with the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct SubscriberError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What, and what it has to be. Never the key itself.
    pub what: String,
}

/// Reads all of them. Empty lines and lines that begin with `#` say nothing.
pub fn read(text: &str) -> Result<Vec<Subscriber>, SubscriberError> {
    let mut lines = (1..).zip(text.lines().map(str::trim_end));
    let mut lines = lines
        .by_ref()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let at = |line, column, what: String| SubscriberError { line, column, what };
    match lines.next() {
        Some((_, HEAD)) => {}
        Some((line, _)) => return Err(at(line, 1, format!("the first line must be `{HEAD}`"))),
        None => {
            return Err(at(
                1,
                1,
                format!("the file is empty; its first line must be `{HEAD}`"),
            ));
        }
    }
    let mut known = std::collections::HashSet::new();
    let mut subscribers = Vec::new();
    for (number, line) in lines {
        let subscriber = subscriber(line).map_err(|(column, what)| at(number, column, what))?;
        for identity in [&subscriber.imsi, &subscriber.msisdn] {
            if !known.insert(identity.clone()) {
                return Err(at(number, 1, format!("{identity} is there twice")));
            }
        }
        subscribers.push(subscriber);
    }
    Ok(subscribers)
}

fn subscriber(line: &str) -> Result<Subscriber, (usize, String)> {
    let mut column = 1;
    let mut fields = line.split(',').map(|field| {
        let at = column;
        column += field.chars().count() + 1;
        (at, field)
    });
    let mut next = |name: &str| {
        fields.next().ok_or_else(|| {
            let end = line.chars().count() + 1;
            (end, format!("{name} is missing: a line is `{HEAD}`"))
        })
    };
    let imsi = digits("imsi", 15..=15, next("imsi")?)?;
    let msisdn = digits("msisdn", 3..=15, next("msisdn")?)?;
    let (k, opc) = (octets("k", next("k")?)?, octets("opc", next("opc")?)?);
    match fields.next() {
        Some((at, _)) => Err((at, format!("too many fields: a line is `{HEAD}`"))),
        None => Ok(Subscriber {
            imsi,
            msisdn,
            key: Key::new(k, opc),
        }),
    }
}

fn digits(
    name: &str,
    lengths: std::ops::RangeInclusive<usize>,
    (at, field): (usize, &str),
) -> Result<String, (usize, String)> {
    if lengths.contains(&field.len()) && field.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(field.to_owned());
    }
    let (least, most) = lengths.into_inner();
    let wanted = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    Err((at, format!("{name} must be {wanted} digits")))
}

fn octets(name: &str, (at, field): (usize, &str)) -> Result<[u8; 16], (usize, String)> {
    let bytes = hex::decode(field).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| (at, format!("{name} must be 32 hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "465b5ce8b199b49faa5f0a2ee238a6bc,cd63cb71954a9f4e48a5994e37a02baf";

    fn wrong(text: &str) -> String {
        read(text).err().expect("an error").to_string()
    }

    #[test]
    fn a_file_is_read() {
        let text =
            format!("# lab\n{HEAD}\n001010000000001,4900001,{KEYS}\n\n001010000000002,4900002,{KEYS}\n");
        let all = read(&text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(
            (all.len(), all[1].imsi.as_str(), all[1].msisdn.as_str()),
            (2, "001010000000002", "4900002")
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_without_a_key() {
        assert_eq!(
            wrong(""),
            format!("line 1, column 1: the file is empty; its first line must be `{HEAD}`")
        );
        let with = |line: &str| wrong(&format!("{HEAD}\n{line}"));
        assert_eq!(with("1,2"), "line 2, column 1: imsi must be 15 digits");
        assert_eq!(
            with("001010000000001,x"),
            "line 2, column 17: msisdn must be 3 to 15 digits"
        );
        assert_eq!(
            with("001010000000001,49001,465b"),
            "line 2, column 23: k must be 32 hexadecimal digits"
        );
        assert!(with(&format!("001010000000001,49001,{KEYS},1")).contains("too many fields"));
        assert!(with("001010000000001").starts_with("line 2, column 16: msisdn is missing"));
        let one = format!("001010000000001,49001,{KEYS}");
        assert_eq!(
            with(&format!("{one}\n{one}")),
            "line 3, column 1: 001010000000001 is there twice"
        );
    }
}
