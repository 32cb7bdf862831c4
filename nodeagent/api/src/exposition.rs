//! What programs tell about themselves: Prometheus text format 0.0.4.

/// Sum of all samples of one metric; `None` if there is none, or if it would be 0 and one of
/// them tells nothing (NaN, no number, below 0): unknown is not 0.
pub fn sum(text: &str, metric: &str) -> Option<u64> {
    let mut total = None;
    let mut unclear = false;
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix(metric) else {
            continue;
        };
        let value = match rest.as_bytes().first() {
            Some(b'{') => after_labels(rest),
            Some(b' ' | b'\t') => Some(rest),
            _ => continue,
        };
        let value = value.and_then(|v| v.split_ascii_whitespace().next()?.parse::<f64>().ok());
        match value.filter(|v| v.is_finite() && *v >= 0.0) {
            Some(value) => *total.get_or_insert(0.0) += value,
            None => unclear = true,
        }
    }
    if unclear && total == Some(0.0) {
        return None;
    }
    // Saturates; half a session is one.
    total.map(|t: f64| t.ceil() as u64)
}

/// What follows `{...}`; label values may hold braces and escaped quotes.
fn after_labels(text: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(&text[index + 1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_samples_and_nothing_else() {
        let text = "# HELP dialogs x\n# TYPE dialogs gauge\ndialogs{a=\"}\\\"\"} 3 1700000000\ndialogs 4\n\
                    dialogs_total 100\ndialogs{x=\"y\"} NaN\n";
        assert_eq!(sum(text, "dialogs"), Some(7));
        assert_eq!(sum(text, "dialogs_total"), Some(100));
        assert_eq!(sum(text, "dialog"), None);
        for unclear in [
            "dialogs 0\ndialogs{a=\"b\"} NaN\n",
            "dialogs -1\n",
            "dialogs{ 0\ndialogs 0",
        ] {
            assert_eq!(sum(unclear, "dialogs"), None, "{unclear}");
        }
        assert_eq!(sum("dialogs 1e3\ndialogs 0.5", "dialogs"), Some(1001));
    }
}
