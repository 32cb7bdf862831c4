//! Unions of Kubernetes: objects of which exactly one member says what is meant (a volume's source, a variable's, what a probe
//! does). The API refuses any other number; what is older, or was never asked, is refused again here: no member is taken because
//! it comes first.

use serde::Serialize;

/// In words, unless exactly one member is set; fields in `besides` are none.
pub(super) fn exactly_one(union: &impl Serialize, besides: &[&str]) -> Result<(), String> {
    let fields = serde_json::to_value(union).map_err(|e| e.to_string())?;
    let fields = fields.as_object().into_iter().flatten();
    let members = fields.filter(|(name, value)| !besides.contains(&name.as_str()) && !value.is_null());
    let members: Vec<&str> = members.map(|(name, _)| name.as_str()).collect();
    match members.as_slice() {
        [_] => Ok(()),
        [] => Err("it says nothing of what it is: exactly one of its kinds is needed".to_owned()),
        many => Err(format!(
            "it is {} at once: exactly one is allowed",
            many.join(" and ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Volume;
    use serde_json::json;

    use super::*;

    #[test]
    fn none_and_several_are_refused() {
        let of = |volume| {
            let volume: Volume = serde_json::from_value(volume).unwrap();
            exactly_one(&volume, &["name"])
        };
        assert_eq!(of(json!({"name": "v", "emptyDir": {}})), Ok(()));
        assert_eq!(
            of(json!({"name": "v", "nfs": {"path": "/", "server": "s"}})),
            Ok(())
        );
        assert!(of(json!({"name": "v"})).unwrap_err().contains("says nothing"));
        let two = json!({"name": "v", "image": {"reference": "x"}, "hostPath": {"path": "/"}});
        assert!(of(two).unwrap_err().contains("hostPath and image at once"));
    }
}
