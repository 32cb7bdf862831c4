//! Which lines of a template come through: each line of plain text gets a mark before rendering, and those whose mark does
//! not come out are gone.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::TemplateSyntax;

/// Around the number of a line. Unicode's private use: in no configuration.
const MARK: (char, char) = ('\u{f8f2}', '\u{f8f3}');
/// Statements that have an end, and may leave out what is between.
const ENCLOSING: [&str; 7] = ["if", "for", "macro", "filter", "call", "block", "with"];

/// What a template was rendered to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The file.
    pub text: String,
    /// Lines of plain text that are not in it, in order.
    pub removed: Vec<Removed>,
}

/// A line of a template that is not in the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub word: String,
}

/// The tags of a template, in order. What stands between `raw` and `endraw` has none.
pub(crate) fn tags(syntax: TemplateSyntax, text: &str) -> Vec<Tag> {
    let marks = syntax.marks();
    // Where each mark occurs next: looked for once, for a text may be all marks.
    let mut next = marks.map(|(begin, _)| text.find(begin));
    let mut tags: Vec<Tag> = Vec::new();
    let mut raw = false;
    let mut from = 0;
    loop {
        for (next, (begin, _)) in next.iter_mut().zip(marks) {
            if next.is_some_and(|at| at < from) {
                *next = text[from..].find(begin).map(|at| from + at);
            }
        }
        // Of two marks at one place the longer one counts, which is the first.
        let nearest = (0..marks.len()).filter_map(|i| Some((next[i]?, i))).min();
        let Some((start, which)) = nearest else {
            return tags;
        };
        let (begin, end) = marks[which];
        let content = start + begin.len();
        let is_value = which == 0;
        let word = if is_value {
            ""
        } else {
            first_word(&text[content..])
        };
        if raw && word != "endraw" {
            // Text, as far as the mark goes.
            from = content;
            continue;
        }
        raw = word == "raw";
        from = content + tag_end(&text[content..], end);
        tags.push(Tag {
            range: start..from,
            word: word.to_owned(),
        });
    }
}

fn first_word(text: &str) -> &str {
    let inner = text.trim_start_matches(['-', '+']).trim_start();
    let word = inner
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .next();
    word.unwrap_or_default()
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
    let mut tags = tags.iter().peekable();
    let mut lines = Vec::new();
    let mut start = 0;
    let mut depth = 0_i64;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let end = start + line.len();
        while let Some(tag) = tags.next_if(|tag| tag.range.end <= start) {
            depth += match tag.word.strip_prefix("end") {
                Some(word) if ENCLOSING.contains(&word) => -1,
                _ if ENCLOSING.contains(&tag.word.as_str()) => 1,
                _ => 0,
            };
        }
        let touched = tags.peek().is_some_and(|tag| tag.range.start < end);
        if !touched && !line.trim().is_empty() {
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
