//! Signals by the names that images use (OCI image spec, config.md: `StopSignal`).

/// Names without `SIG`, by number from 1 (signal(7), x86 and ARM).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first and the last real-time signal that programs may use with glibc.
const RT: (i32, i32) = (34, 64);

/// The number of `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`; `None` if there is no such signal.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=RT.1).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<i32>().ok().filter(|n| *n >= 0),
        None => rest.is_empty().then_some(0),
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest, '+').and_then(|n| RT.0.checked_add(n)),
        (_, Some(rest)) => offset(rest, '-').and_then(|n| RT.1.checked_sub(n)),
        (None, None) => {
            let at = NAMES.iter().position(|known| *known == name)?;
            return i32::try_from(at + 1).ok();
        }
    };
    real_time.filter(|n| (RT.0..=RT.1).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGUSR1", 10),
            ("SIGWINCH", 28),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
            ("SIGSYS", 31),
        ] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "-1",
            "SIGNONE",
            "SIGRTMIN+31",
            "SIGRTMIN-1",
            "RTMIN+-3",
        ] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }
}
