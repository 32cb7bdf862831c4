//! Kubernetes resource quantities (`250m`, `2`, `128Mi`, `1G`), as far as CPU and memory need them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: write {example}")]
pub struct ParseQuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Thousandths of a CPU: `250m`, `0.5`, `2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliCpu(pub u32);

/// Bytes: `128Mi`, `1Gi`, `512000`, `1G`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(pub u64);

const SUFFIXES: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

impl FromStr for MilliCpu {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseQuantityError {
            text: text.to_owned(),
            what: "CPU quantity",
            example: "250m, 0.5 or 2",
        };
        if let Some(milli) = text.strip_suffix('m') {
            return milli.parse().map(Self).map_err(|_| bad());
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !digits(whole)
            || !digits(fraction)
            || fraction.len() > 3
            || text.ends_with('.')
        {
            return Err(bad());
        }
        let milli: u32 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        whole
            .checked_mul(1000)
            .and_then(|w| w.checked_add(milli))
            .map(Self)
            .ok_or_else(bad)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseQuantityError {
            text: text.to_owned(),
            what: "memory quantity",
            example: "128Mi, 1Gi or a number of bytes",
        };
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|n| (n, *factor)))
            .ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(factor).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, factor) in SUFFIXES[..4].iter().rev() {
            if self.0 != 0 && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{suffix}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a quantity")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

as_text!(MilliCpu);
as_text!(Quantity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_and_write_as_in_kubernetes() {
        for (text, milli) in [("250m", 250), ("2", 2000), ("0.5", 500), ("1.25", 1250)] {
            assert_eq!(text.parse::<MilliCpu>().unwrap().0, milli);
        }
        for (text, bytes) in [("128Mi", 128 << 20), ("1Gi", 1 << 30), ("1k", 1000), ("7", 7)] {
            assert_eq!(text.parse::<Quantity>().unwrap().0, bytes);
            assert_eq!(Quantity(bytes).to_string().parse::<Quantity>().unwrap().0, bytes);
        }
        for text in ["", "m", "x", "1.", ".5", "-1", "1.2345", "4294967295"] {
            assert!(text.parse::<MilliCpu>().is_err(), "{text}");
        }
        assert!("18446744073709551615Ki".parse::<Quantity>().is_err());
    }
}
