//! What of a template comes through: each part of plain text gets a mark before rendering, and those whose mark does not come out
//! are gone.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::TemplateSyntax;

/// Around the number of a part. Unicode's private use: in no configuration.
const MARK: (char, char) = ('\u{f8f2}', '\u{f8f3}');
/// Statements that have an end, and may leave out what is between.
const ENCLOSING: [&str; 7] = ["if", "for", "macro", "filter", "call", "block", "with"];

/// What a template was rendered to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The file.
    pub text: String,
    /// Plain text that is not in it, in order: whole lines, or what of one stands between tags.
    pub removed: Vec<Removed>,
}

/// A line of a template, or a part of one, that is not in the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Line of the template, from 1.
    pub line: usize,
    /// The text, without blanks around it.
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

/// Plain text of one line between tags, or a whole line.
struct Plain<'a> {
    line: usize,
    start: usize,
    text: &'a str,
    conditional: bool,
}

fn plain_parts(syntax: TemplateSyntax, text: &str) -> Vec<Plain<'_>> {
    let mut parts = Vec::new();
    let (mut line, mut start, mut depth) = (1, 0, 0_i64);
    let end = Tag {
        range: text.len()..text.len(),
        word: String::new(),
    };
    for tag in tags(syntax, text).into_iter().chain([end]) {
        for piece in text[start..tag.range.start].split_inclusive('\n') {
            let plain = piece.trim();
            if !plain.is_empty() {
                parts.push(Plain {
                    line,
                    // Blanks beside a tag are the tag's, which may take them away.
                    start: start + piece.len() - piece.trim_start().len(),
                    text: plain,
                    conditional: depth > 0,
                });
            }
            start += piece.len();
            line += usize::from(piece.ends_with('\n'));
        }
        line += text[tag.range.clone()].matches('\n').count();
        start = tag.range.end;
        depth += match tag.word.strip_prefix("end") {
            Some(word) if ENCLOSING.contains(&word) => -1,
            _ if ENCLOSING.contains(&tag.word.as_str()) => 1,
            _ => 0,
        };
    }
    parts
}

/// The template with a mark before each part of plain text.
pub(crate) fn mark(syntax: TemplateSyntax, text: &str) -> String {
    let mut marked = String::new();
    let mut from = 0;
    for (number, part) in plain_parts(syntax, text).into_iter().enumerate() {
        marked += &text[from..part.start];
        marked += &format!("{}{number}{}", MARK.0, MARK.1);
        from = part.start;
    }
    marked + &text[from..]
}

/// The parts whose mark is not in what was rendered.
pub(crate) fn removed(syntax: TemplateSyntax, text: &str, rendered: &str) -> Vec<Removed> {
    let number = |part: &str| part.split_once(MARK.1)?.0.parse().ok();
    let seen: BTreeSet<usize> = rendered.split(MARK.0).skip(1).filter_map(number).collect();
    let parts = plain_parts(syntax, text).into_iter().enumerate();
    let gone = parts.filter(|(number, _)| !seen.contains(number));
    gone.map(|(_, part)| Removed {
        line: part.line,
        text: part.text.to_owned(),
        conditional: part.conditional,
    })
    .collect()
}
