//! NetworkService -> its NetworkFunctions, wired and grouped.
//!
//! A function is changed only where its service changed: `gantry scale` on one function stays until the service says otherwise.

use gantry_api::{
    NetworkFunction, NetworkFunctionSpec, NetworkService, NetworkServiceStatus, ObjectMeta, labels,
};
use gantry_catalog::ServiceFunction;

use super::meta;
use super::world::{Key, Work};

/// Annotation on a function: the JSON of the service's part that it was last made from.
const APPLIED: &str = "gantry.dev/service-function";

/// Makes, changes and removes the functions of every service.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<NetworkService>() {
        let Some(service) = work.get::<NetworkService>(&key) else {
            continue;
        };
        if service.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let mut problems = Vec::new();
        for function in &service.spec.functions {
            if let Err(problem) = ensure(work, &service, function) {
                problems.push(problem);
            }
        }
        for old in owned(work, &service) {
            if !service.spec.functions.iter().any(|f| f.name == old.name) {
                work.retire::<NetworkFunction>(&old);
            }
        }
        status(work, &key, &service, &problems);
    }
}

fn owned(work: &Work<'_>, service: &NetworkService) -> Vec<Key> {
    let functions = work.objects.functions.iter();
    functions
        .filter(|(_, f)| meta::controls(&service.metadata, &f.metadata))
        .map(|(key, _)| key.clone())
        .collect()
}

fn ensure(work: &mut Work<'_>, service: &NetworkService, wanted: &ServiceFunction) -> Result<(), String> {
    let service_name = meta::name(&service.metadata);
    let key = Key::new(meta::namespace(&service.metadata), &wanted.name);
    let text = serde_json::to_string(wanted).expect("plain data has a JSON form");
    let spec = wanted.to_network_function(Some(service_name.to_owned()));
    let Some(old) = work.get::<NetworkFunction>(&key) else {
        let owner = meta::owner("gantry.dev/v1", NetworkService::KIND, &service.metadata);
        let metadata = ObjectMeta {
            name: Some(wanted.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(meta::pairs(&[(labels::SERVICE, service_name)])),
            annotations: Some(meta::pairs(&[(APPLIED, &text)])),
            owner_references: Some(vec![owner]),
            ..Default::default()
        };
        work.create(NetworkFunction::new(metadata, spec));
        return Ok(());
    };
    if !meta::controls(&service.metadata, &old.metadata) {
        return Err(format!(
            "{}: a NetworkFunction of this name exists and is not part of this service: delete it or choose another name",
            wanted.name
        ));
    }
    let applied = meta::annotation(&old.metadata, APPLIED).unwrap_or_default();
    if applied != text && old.metadata.deletion_timestamp.is_none() {
        let before = serde_json::from_str::<ServiceFunction>(applied)
            .unwrap_or_default()
            .to_network_function(None);
        if let Some(function) = work.edit::<NetworkFunction>(&key) {
            apply(&mut function.spec, &before, spec);
            if function.spec != old.spec {
                function.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
            }
            meta::annotate(&mut function.metadata, APPLIED, Some(text));
        }
    }
    Ok(())
}

/// Takes over the fields that the service changed.
fn apply(target: &mut NetworkFunctionSpec, before: &NetworkFunctionSpec, wanted: NetworkFunctionSpec) {
    macro_rules! take {
        ($($field:ident)*) => { $(if wanted.$field != before.$field { target.$field = wanted.$field; })* };
    }
    take!(package version replicas values peers resources group);
}

fn status(work: &mut Work<'_>, key: &Key, service: &NetworkService, problems: &[String]) {
    let functions: Vec<_> = owned(work, service)
        .iter()
        .filter_map(|k| work.get::<NetworkFunction>(k))
        .collect();
    let settled = |f: &NetworkFunction| {
        f.metadata.generation == Some(f.status.observed_generation)
            && f.status.ready_replicas >= f.spec.replicas
            && f.status.message.is_empty()
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let waiting = functions.iter().filter(|f| !f.status.message.is_empty());
    let reasons = problems
        .iter()
        .cloned()
        .chain(waiting.map(|f| format!("{}: {}", meta::name(&f.metadata), f.status.message)));
    // The functions are written in the same transaction.
    let new = NetworkServiceStatus {
        observed_generation: service.metadata.generation.unwrap_or(1),
        ready_functions: count(functions.iter().filter(|f| settled(f)).count()),
        functions: count(service.spec.functions.len()),
        message: reasons.collect::<Vec<_>>().join("; "),
    };
    if new != service.status
        && let Some(service) = work.edit::<NetworkService>(key)
    {
        service.status = new;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_api::NetworkServiceSpec;

    use super::super::world::{Object, Settings, World};
    use super::*;

    #[test]
    fn a_generation_is_observed_together_with_its_functions() {
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        let metadata = ObjectMeta {
            name: Some("core".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("u".to_owned()),
            generation: Some(3),
            ..Default::default()
        };
        let function = ServiceFunction {
            name: "f".to_owned(),
            ..Default::default()
        };
        let spec = NetworkServiceSpec {
            functions: vec![function],
            ..Default::default()
        };
        let service = NetworkService::new(metadata, spec);
        world.objects.put(Object::NetworkService(Arc::new(service)));
        let key = Key::new("default", "core");
        let mut work = Work::new(&world, 0);
        run(&mut work);
        let service = work.get::<NetworkService>(&key).unwrap();
        assert_eq!(service.status.observed_generation, 3);
        assert!(work.objects.functions.contains_key(&Key::new("default", "f")));
    }
}
