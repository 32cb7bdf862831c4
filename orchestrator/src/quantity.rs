//! Kubernetes' quantities, every form of them: `1.5Gi`, `250m`, `1e9`. The validation and the core read them here, so that what
//! is accepted is what counts.
//! Source: k8s.io/apimachinery/pkg/api/resource/quantity.go, doc of `Quantity`.

/// The value in whole units (bytes, pages, pieces), rounded up. `None` for a text that is no quantity, is negative, or is too large.
pub fn units(text: &str) -> Option<u64> {
    scaled(text, 1)?.try_into().ok()
}

/// The value in thousandths, rounded up. `None` as in [`units`].
pub fn milli(text: &str) -> Option<u32> {
    scaled(text, 1000)?.try_into().ok()
}

/// The value times `scale`, rounded up.
fn scaled(text: &str, scale: u128) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (binary, exponent) = factor(suffix)?;
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = 10u128.checked_pow(exponent.unsigned_abs());
    let value = digits.checked_mul(scale)?.checked_mul(1 << binary)?;
    match power {
        Some(power) if exponent < 0 => Some(value.div_ceil(power)),
        Some(power) => value.checked_mul(power),
        // Smaller than anything that is counted, or larger.
        None if exponent < 0 => Some(value.min(1)),
        None => (value == 0).then_some(0),
    }
}

/// A suffix as powers of 2 and of 10.
fn factor(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_kubernetes_is_read_and_rounded_up() {
        for (text, value) in [
            ("0", 0),
            ("128974848", 128_974_848),
            ("+5", 5),
            ("5.", 5),
            (".5k", 500),
            ("1.5Gi", 3 << 29),
            ("129e6", 129_000_000),
            ("1E9", 1_000_000_000),
            ("1e-3", 1),
            ("1E", 1_000_000_000_000_000_000),
            ("1Pi", 1 << 50),
            ("15Ei", 15 << 60),
            ("128974848000m", 128_974_848),
            ("1m", 1),
            ("1e-99", 1),
            ("0e99", 0),
        ] {
            assert_eq!(units(text), Some(value), "{text}");
        }
        for (text, value) in [
            ("2", 2000),
            ("0.5", 500),
            ("250m", 250),
            ("1500u", 2),
            ("1e-1", 100),
        ] {
            assert_eq!(milli(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "", ".", "m", "-1", "1.2.3", "1 Gi", "1gi", "1KiB", "1e", "1e1.5", "inf", "NaN", "0x10", "++1",
            "16Ei", "1e20",
        ] {
            assert_eq!(units(text), None, "{text}");
        }
        assert_eq!(milli("5000000"), None, "more thousandths than fit");
    }
}
