//! What selectors look at of a stored object, read without keeping the rest: an object may be a megabyte of other things.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::selector::{FIELDS, LABELS};

/// The object with its labels and the fields that may be selected by. `Null` for what is no JSON.
pub fn looked(value: &[u8]) -> Value {
    let mut reader = serde_json::Deserializer::from_slice(value);
    reader.deserialize_any(Within("")).unwrap_or_default()
}

/// An object of which some members are kept; its path, as in a field selector.
struct Within<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let path = match self.0 {
                "" => key.clone(),
                within => format!("{within}.{key}"),
            };
            let mut paths = FIELDS.iter().chain([&LABELS]);
            if paths.clone().any(|field| *field == path) {
                kept.insert(key, members.next_value()?);
            } else if paths.any(|field| is_within(field, &path)) {
                kept.insert(key, members.next_value_seed(Within(&path))?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(kept))
    }

    // Of another type than it should be: nothing to look at.

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

fn is_within(field: &str, path: &str) -> bool {
    field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::limits::ObjectLimits;
    use super::super::selector::Selector;
    use super::*;

    #[test]
    fn the_rest_is_left_out() {
        let object = json!({
            "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"nodeName": "n", "unschedulable": true, "containers": [{"name": "c"}]},
            "status": "odd", "data": {"type": "x"}, "type": "t", "involvedObject": [1, 2],
        });
        let kept = json!({
            "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"nodeName": "n", "unschedulable": true},
            "status": null, "type": "t", "involvedObject": null,
        });
        assert_eq!(looked(object.to_string().as_bytes()), kept);
        assert_eq!(looked(b"[1]"), Value::Null);
        assert_eq!(looked(b"{\"metadata\": "), Value::Null);
    }

    #[test]
    fn selectors_see_the_same() {
        let odd = [
            json!(null),
            json!(7),
            json!(-7),
            json!(0.5),
            json!(true),
            json!("n"),
            json!({"name": "n"}),
        ];
        let selector = |text: &str| Selector::parse("", text, &ObjectLimits::default()).unwrap();
        for value in &odd {
            let object = json!({"metadata": {"name": value}, "spec": value, "status": {"phase": value}, "reason": value});
            let seen = looked(object.to_string().as_bytes());
            for text in FIELDS
                .iter()
                .flat_map(|f| [format!("{f}=n"), format!("{f}!=n"), format!("{f}=")])
            {
                let selector = selector(&text);
                assert_eq!(
                    selector.matches(&object),
                    selector.matches(&seen),
                    "{text} of {object}"
                );
            }
        }
    }
}
