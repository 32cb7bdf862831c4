//! Bodies in Kubernetes' protobuf form, which kubectl's generators send (`create namespace`, `create configmap`, evictions).
//!
//! An envelope (`k8s\0`, then `runtime.Unknown`) around the message of a kind. A field that `schema.txt` does not have is
//! an error: nothing is dropped silently. Answers are JSON, which such clients accept.

mod reader;
mod schema;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use reader::{Field, Reader, Wire};
use schema::{Shape, Type, message};

const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages, at most.
const DEPTH: usize = 32;
/// Fields whose content belongs to the message around them.
const INLINE: [&str; 4] = [
    "localObjectReference",
    "volumeSource",
    "handler",
    "ephemeralContainerCommon",
];

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    /// No `k8s\0` in front.
    #[error("the body is not in Kubernetes' protobuf envelope")]
    Envelope,
    /// Cut off, or not protobuf.
    #[error("the body is cut off or malformed")]
    Malformed,
    /// A message that we have no fields of.
    #[error("{0} cannot be read as protobuf here: send it as JSON")]
    Kind(String),
    /// A field that we do not know.
    #[error("field {number} of {message} is unknown here: send the object as JSON")]
    Field {
        /// Message.
        message: String,
        /// Number.
        number: u64,
    },
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// The object in the envelope.
pub(super) fn decode(body: &[u8]) -> Result<Value> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Envelope)?;
    let (mut meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for field in Reader::new(unknown) {
        match field? {
            Field {
                number: 1,
                wire: Wire::Bytes(bytes),
            } => meta = bytes,
            Field {
                number: 2,
                wire: Wire::Bytes(bytes),
            } => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Reader::new(meta) {
        match field? {
            Field {
                number: 1,
                wire: Wire::Bytes(bytes),
            } => api_version = text(bytes)?,
            Field {
                number: 2,
                wire: Wire::Bytes(bytes),
            } => kind = text(bytes)?,
            _ => {}
        }
    }
    let mut object = read(&kind, raw, 0)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed)
}

fn read(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>> {
    let fields = message(name).ok_or_else(|| ProtobufError::Kind(name.to_owned()))?;
    if depth > DEPTH {
        return Err(ProtobufError::Malformed);
    }
    let mut object = Map::new();
    for field in Reader::new(bytes) {
        let Field { number, wire } = field?;
        let known = fields
            .iter()
            .find(|f| f.number == number)
            .ok_or_else(|| ProtobufError::Field {
                message: name.to_owned(),
                number,
            })?;
        match known.shape {
            Shape::Skip => {}
            Shape::Map => {
                let (key, value) = entry(known.type_, &wire, depth)?;
                if let Some(map) = object
                    .entry(known.name)
                    .or_insert_with(|| json!({}))
                    .as_object_mut()
                {
                    map.insert(key, value);
                }
            }
            Shape::List => {
                let value = value(known.type_, &wire, depth)?;
                if let Some(list) = object
                    .entry(known.name)
                    .or_insert_with(|| json!([]))
                    .as_array_mut()
                {
                    list.push(value);
                }
            }
            Shape::One => {
                let value = value(known.type_, &wire, depth)?;
                // Zero means absent where Go's type is no pointer: for texts always, for numbers in probes.
                let absent = value.is_null() || value == "" || (name == "Probe" && value == 0);
                match value {
                    Value::Object(inner) if INLINE.contains(&known.name) => object.extend(inner),
                    value if !absent => drop(object.insert(known.name.to_owned(), value)),
                    _ => {}
                }
            }
        }
    }
    Ok(object)
}

fn entry(type_: Type, wire: &Wire<'_>, depth: usize) -> Result<(String, Value)> {
    let Wire::Bytes(bytes) = wire else {
        return Err(ProtobufError::Malformed);
    };
    let (mut key, mut found) = (String::new(), value(type_, &Wire::Bytes(&[]), depth)?);
    for field in Reader::new(bytes) {
        match field? {
            Field {
                number: 1,
                wire: Wire::Bytes(bytes),
            } => key = text(bytes)?,
            Field { number: 2, wire } => found = value(type_, &wire, depth)?,
            _ => return Err(ProtobufError::Malformed),
        }
    }
    Ok((key, found))
}

fn value(type_: Type, wire: &Wire<'_>, depth: usize) -> Result<Value> {
    use base64::Engine;
    Ok(match (type_, wire) {
        (Type::Text, Wire::Bytes(bytes)) => json!(text(bytes)?),
        (Type::Bytes, Wire::Bytes(bytes)) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        // Negative numbers are sign-extended to 64 bits on the wire.
        (Type::Integer, Wire::Varint(n)) => json!(n.cast_signed()),
        (Type::Truth, Wire::Varint(n)) => json!(*n != 0),
        (Type::Double, Wire::Fixed64(n)) => json!(f64::from_bits(*n)),
        (Type::Message(name), Wire::Bytes(bytes)) => match name {
            "Time" | "MicroTime" => time(bytes)?,
            "Quantity" => parts(bytes)?.1.into(),
            "IntOrString" => int_or_string(bytes)?,
            name => Value::Object(read(name, bytes, depth + 1)?),
        },
        _ => return Err(ProtobufError::Malformed),
    })
}

/// Numbers by field, and the last text.
fn parts(bytes: &[u8]) -> Result<([u64; 4], String)> {
    let (mut numbers, mut last) = ([0; 4], String::new());
    for field in Reader::new(bytes) {
        match field? {
            Field {
                number: n @ 1..=3,
                wire: Wire::Varint(value),
            } => numbers[n as usize] = value,
            Field {
                wire: Wire::Bytes(bytes),
                ..
            } => last = text(bytes)?,
            _ => return Err(ProtobufError::Malformed),
        }
    }
    Ok((numbers, last))
}

fn time(bytes: &[u8]) -> Result<Value> {
    let ([_, seconds, nanos, _], _) = parts(bytes)?;
    if seconds == 0 {
        return Ok(Value::Null);
    }
    let at =
        OffsetDateTime::from_unix_timestamp(seconds.cast_signed()).map_err(|_| ProtobufError::Malformed)?;
    let at = at + std::time::Duration::from_nanos(nanos);
    Ok(json!(at.format(&Rfc3339).map_err(|_| ProtobufError::Malformed)?))
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let ([_, is_text, number, _], text) = parts(bytes)?;
    Ok(if is_text == 1 {
        json!(text)
    } else {
        json!(number.cast_signed())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn config_map() {
        let raw = [
            field(1, &field(1, b"c")),
            field(2, &[field(1, b"a"), field(2, b"b")].concat()),
        ]
        .concat();
        let expected =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
        assert_eq!(decode(&envelope("ConfigMap", &raw)).unwrap(), expected);
    }

    #[test]
    fn nothing_is_dropped_silently() {
        let unknown = decode(&envelope("ConfigMap", &field(15, b"x"))).unwrap_err();
        assert_eq!(
            unknown,
            ProtobufError::Field {
                message: "ConfigMap".to_owned(),
                number: 15
            }
        );
        assert_eq!(
            decode(&envelope("Other", b"")).unwrap_err(),
            ProtobufError::Kind("Other".to_owned())
        );
        assert_eq!(decode(b"{}").unwrap_err(), ProtobufError::Envelope);
        let cut = envelope("ConfigMap", &field(1, b"abc"));
        assert!(decode(&cut[..cut.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..60), kind in "Pod|Service|Deployment") {
            let _ = decode(&envelope(&kind, &raw));
        }
    }
}
