//! Which lines of a template come through: each line of plain text gets a mark before rendering, and those whose mark does
//! not come out are gone.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::TemplateSyntax;

/// Around the number of a line. Unicode's private use: in no configuration.
const MARK: (char, char) = ('\u{f8f2}', '\u{f8f3}');
/// Statements that have an end, and may leave out what is between.
const ENCLOSING: [&str; 7] = ["if", "for", "macro", "filter", "call", "block", "with"];

/// What a template was rendered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The file.
    pub text: String,
    /// Lines of plain text that are not in it, in order.
    pub removed: Vec<Removed>,
}

/// A line of a template that is not in the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Line of the template, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// Whether it stands within a statement that may leave it out.
    pub conditional: bool,
}

/// A tag.
pub(crate) struct Tag {
    /// Where it stands, marks included.
    pub range: Range<usize>,
    /// The first word of a statement; empty for a value.
    word: String,
}

/// The tags of a template, in order. What stands between `raw` and `endraw` has none.
pub(crate) fn tags(syntax: TemplateSyntax, text: &str) -> Vec<Tag> {
    let marks = syntax.marks();
    let mut tags: Vec<Tag> = Vec::new();
    let mut raw = false;
    let mut from = 0;
    // Of two marks at one place the longer one counts, which is the first.
    while let Some((start, (begin, end), is_value)) = (marks.iter().zip([true, false]))
        .filter_map(|(mark, is_value)| Some((from + text[from..].find(mark.0)?, *mark, is_value)))
        .min_by_key(|(start, ..)| *start)
    {
        let content = start + begin.len();
        let stop = content + tag_end(&text[content..], end);
        let inner = text[content..stop].trim_start_matches(['-', '+']).trim_start();
        let word = inner
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next();
        let word = if is_value { "" } else { word.unwrap_or_default() };
        from = stop.max(content);
        if raw && word != "endraw" {
            // Text, as far as the mark goes.
            from = content;
            continue;
        }
        raw = word == "raw";
        tags.push(Tag {
            range: start..stop,
            word: word.to_owned(),
        });
    }
    tags
}

/// Where a tag ends, past its mark; quoted text is no mark.
fn tag_end(text: &str, mark: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            None if text[at..].starts_with(mark) => return at + mark.len(),
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// A line without tags, other than an empty one.
struct Plain<'a> {
    number: usize,
    start: usize,
    text: &'a str,
    conditional: bool,
}

fn plain_lines(syntax: TemplateSyntax, text: &str) -> Vec<Plain<'_>> {
    let tags = tags(syntax, text);
    let mut lines = Vec::new();
    let mut start = 0;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let end = start + line.len();
        let touched = tags
            .iter()
            .any(|tag| tag.range.start < end && tag.range.end > start);
        if !touched && !line.trim().is_empty() {
            let before = tags.iter().take_while(|tag| tag.range.end <= start);
            let depth = before.fold(0_i64, |depth, tag| match tag.word.strip_prefix("end") {
                Some(word) if ENCLOSING.contains(&word) => depth - 1,
                _ if ENCLOSING.contains(&tag.word.as_str()) => depth + 1,
                _ => depth,
            });
            lines.push(Plain {
                number: n + 1,
                start,
                text: line.trim_end_matches(['\n', '\r']),
                conditional: depth > 0,
            });
        }
        start = end;
    }
    lines
}

/// The template with a mark before each line of plain text.
pub(crate) fn mark(syntax: TemplateSyntax, text: &str) -> String {
    let mut marked = String::new();
    let mut from = 0;
    for line in plain_lines(syntax, text) {
        marked += &text[from..line.start];
        marked += &format!("{}{}{}", MARK.0, line.number, MARK.1);
        from = line.start;
    }
    marked + &text[from..]
}

/// The lines whose mark is not in what was rendered.
pub(crate) fn removed(syntax: TemplateSyntax, text: &str, rendered: &str) -> Vec<Removed> {
    let number = |part: &str| part.split_once(MARK.1)?.0.parse().ok();
    let seen: BTreeSet<usize> = rendered.split(MARK.0).skip(1).filter_map(number).collect();
    let gone = plain_lines(syntax, text)
        .into_iter()
        .filter(|line| !seen.contains(&line.number));
    gone.map(|line| Removed {
        line: line.number,
        text: line.text.to_owned(),
        conditional: line.conditional,
    })
    .collect()
}
