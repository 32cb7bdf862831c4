//! The fields of messages, from `schema.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bytes,
    Integer,
    Truth,
    Double,
    Message(&'static str),
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
    Skip,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub number: u64,
    pub name: &'static str,
    pub shape: Shape,
    pub type_: Type,
}

static MESSAGES: LazyLock<HashMap<&'static str, Vec<Known>>> = LazyLock::new(|| {
    let lines = include_str!("schema.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, fields)| (name, fields.split("; ").filter_map(field).collect()))
        .collect()
});

/// Fields of a message; `None` if it is not in the schema.
pub(super) fn message(name: &str) -> Option<&'static [Known]> {
    MESSAGES.get(name).map(Vec::as_slice)
}

fn field(text: &'static str) -> Option<Known> {
    let mut words = text.split(' ');
    let (number, name, type_) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (shape, type_) = match type_.strip_prefix('*') {
        Some(of) => (Shape::List, of),
        None => match type_.strip_prefix('%') {
            Some(of) => (Shape::Map, of),
            None if type_ == "-" => (Shape::Skip, type_),
            None => (Shape::One, type_),
        },
    };
    let type_ = match type_ {
        "s" => Type::Text,
        "b" => Type::Bytes,
        "i" => Type::Integer,
        "t" => Type::Truth,
        "d" => Type::Double,
        name => Type::Message(name),
    };
    Some(Known {
        number,
        name,
        shape,
        type_,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_named_is_there() {
        let special = ["Time", "MicroTime", "Quantity", "IntOrString", "-"];
        for (message, fields) in MESSAGES.iter() {
            assert!(!fields.is_empty(), "{message}");
            for field in fields {
                if let Type::Message(name) = field.type_ {
                    assert!(
                        special.contains(&name) || MESSAGES.contains_key(name),
                        "{message}.{} is a {name}",
                        field.name
                    );
                }
            }
        }
        assert!(MESSAGES.len() > 100);
    }
}
