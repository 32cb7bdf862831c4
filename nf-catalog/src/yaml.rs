//! YAML into types, with errors that name file, line and column; for broken rules too, not only for broken YAML.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

/// The largest descriptor accepted, in bytes.
pub const MAX_DESCRIPTOR_BYTES: usize = 1 << 20;

/// What is wrong with a descriptor, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct DescriptorError {
    /// File name as given.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A broken rule: a field path such as `spec.containers[0].memory`, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Field path.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Reads one YAML document. Unknown fields, duplicate keys and YAML 1.1 booleans (`yes`) are errors.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, DescriptorError> {
    if text.len() > MAX_DESCRIPTOR_BYTES {
        let message = format!(
            "{} bytes are more than a descriptor's {MAX_DESCRIPTOR_BYTES}",
            text.len()
        );
        return Err(DescriptorError {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message,
        });
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let message = error.without_snippet().to_string();
        DescriptorError {
            file: file.to_owned(),
            line,
            column,
            message: first_line(&message),
        }
    })
}

/// Turns broken rules into errors with the position of the field in the text (or of its nearest parent).
pub fn locate(file: &str, text: &str, problems: Vec<Problem>) -> Vec<DescriptorError> {
    let tree: Option<Spanned<Tree>> = serde_saphyr::from_str_with_options(text, options()).ok();
    problems
        .into_iter()
        .map(|problem| {
            let (line, column) = tree.as_ref().map_or((1, 1), |tree| position(tree, &problem.path));
            DescriptorError {
                file: file.to_owned(),
                line,
                column,
                message: problem.to_string(),
            }
        })
        .collect()
}

fn options() -> Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// A YAML tree that knows where its nodes stand.
enum Tree {
    Map(BTreeMap<String, Spanned<Tree>>),
    Sequence(Vec<Spanned<Tree>>),
    Scalar,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML node")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            entries.insert(key, value);
        }
        Ok(Tree::Map(entries))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::Sequence(items))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
}

/// Follows `a.b[2].c` as far as the tree goes.
fn position(tree: &Spanned<Tree>, path: &str) -> (u64, u64) {
    let mut node = tree;
    for step in path
        .replace('[', ".")
        .replace(']', "")
        .split('.')
        .filter(|s| !s.is_empty())
    {
        let next = match &node.value {
            Tree::Map(entries) => entries.get(step),
            Tree::Sequence(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            Tree::Scalar => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    (node.referenced.line(), node.referenced.column())
}
