//! Values of headers: lists, addresses, parameters (RFC 3261, 7.3.1 and 20).

/// `"Name" <uri>;parameters`, or a bare URI whose parameters are the header's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Within the brackets, its own parameters included.
    pub uri: &'a str,
    /// Behind them, from the first semicolon on.
    pub parameters: &'a str,
}

impl<'a> NameAddr<'a> {
    /// From one value; `None` if a bracket or a quote does not end.
    pub fn parse(value: &'a str) -> Option<Self> {
        let value = value.trim();
        let after_name = match value.strip_prefix('"') {
            Some(quoted) => &quoted[end_of_quote(quoted)? + 1..],
            None => value,
        };
        if let Some((_, within)) = after_name.split_once('<') {
            let (uri, parameters) = within.split_once('>')?;
            return Some(Self {
                uri,
                parameters: parameters.trim_start(),
            });
        }
        let end = after_name.find(';').unwrap_or(after_name.len());
        let (uri, parameters) = after_name.split_at(end);
        Some(Self {
            uri: uri.trim(),
            parameters,
        })
    }

    /// The `tag`, empty if there is none.
    pub fn tag(&self) -> &'a str {
        param(self.parameters, "tag").unwrap_or_default()
    }
}

/// The value of a parameter in `;a=b;c`: empty for one without a value, without its quotes. Names have no case.
pub fn param<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let all = split(parameters, ';').into_iter().map(str::trim);
    let named = all.filter_map(|parameter| match parameter.split_once('=') {
        Some((key, value)) => key.trim().eq_ignore_ascii_case(name).then_some(value.trim()),
        None => parameter.eq_ignore_ascii_case(name).then_some(""),
    });
    let value = named.into_iter().next()?;
    Some(
        value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .unwrap_or(value),
    )
}

/// Where a quoted text ends that has begun; a backslash keeps the character behind it.
fn end_of_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// The parts between separators that are in no quotes and no brackets.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_u32);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => depth += 1,
            '>' if !quoted => depth = depth.saturating_sub(1),
            _ if character == separator && !quoted && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        let of = |text| NameAddr::parse(text).map(|a| (a.uri, a.tag()));
        assert_eq!(of("<sip:a@b;lr>;tag=1"), Some(("sip:a@b;lr", "1")));
        assert_eq!(of("\"A <x> \\\"B\" <sip:a@b> ;Tag=2"), Some(("sip:a@b", "2")));
        assert_eq!(of("sip:a@b;tag=3"), Some(("sip:a@b", "3")));
        assert_eq!(of("tel:+1"), Some(("tel:+1", "")));
        assert_eq!(of("<sip:a@b"), None);
        assert_eq!(of("\"open <sip:a@b>"), None);
    }

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        let text = ";expires=600;+g.3gpp.smsip;reg-id=\"1;2\"";
        assert_eq!(param(text, "Expires"), Some("600"));
        assert_eq!(param(text, "+g.3gpp.smsip"), Some(""));
        assert_eq!(param(text, "reg-id"), Some("1;2"));
        assert_eq!(param(text, "exp"), None);
    }

    #[test]
    fn lists_are_split_outside_of_quotes_and_brackets() {
        assert_eq!(
            split("<sip:a,b>, \"c,d\" <sip:e>,f", ','),
            ["<sip:a,b>", " \"c,d\" <sip:e>", "f"]
        );
    }
}
