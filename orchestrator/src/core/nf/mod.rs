//! NetworkFunction -> Service, ConfigMap of the revision, Pods: made, scaled, resized, upgraded, taken down.

mod around;
mod claims;
mod identity;
mod instances;
mod own_files;
mod render;
mod rendered;
mod revision;
mod scale;
mod status;
mod template;
mod undeploy;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::{NetworkFunction, NfPackage, NfPackageSpec, ObjectMeta, labels};
use gantry_catalog::{OwnContext, PeerContext, Transport};
use k8s_openapi::api::core::v1::{
    ConfigMap, Pod, PodDNSConfig, PodDNSConfigOption, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::world::{Key, Work};
use super::{meta, operation, pods, vip};
use rendered::Unmade;
pub use rendered::{Rendered, Rendering, Whose};
use revision::Revision;
pub use status::run as status;
pub use undeploy::UNDEPLOY;

/// Finalizer on every function: its pods go before it does.
pub const FINALIZER: &str = "gantry.dev/drain";

/// A function with all that its pods are made from.
pub(super) struct Blueprint {
    pub function: Arc<NetworkFunction>,
    pub package: Arc<NfPackage>,
    pub revision: String,
    /// File key to text.
    pub files: BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
    peers: BTreeMap<String, PeerContext>,
    own: OwnContext,
}

impl Blueprint {
    /// Whom its pods ask for names; none: the node.
    fn dns(&self) -> Option<PodDNSConfig> {
        let dns = self.package.spec.dns.as_ref()?;
        let server = self.peers.get(&dns.server)?.vip.clone()?;
        let option = |(name, value): (&String, &String)| PodDNSConfigOption {
            name: Some(name.clone()),
            value: (!value.is_empty()).then(|| value.clone()),
        };
        let options: Vec<_> = dns.options.iter().map(option).collect();
        Some(PodDNSConfig {
            nameservers: Some(vec![server]),
            searches: (!dns.searches.is_empty()).then(|| dns.searches.clone()),
            options: (!options.is_empty()).then_some(options),
        })
    }

    /// What its instances' own files depend on, but for what is around them.
    fn made_from(&self) -> Revision {
        Revision {
            package: self.function.spec.package.clone(),
            version: self.function.spec.version.clone(),
            values: self.values.clone(),
            peers: self.peers.clone(),
        }
    }
}

/// Brings every function a step nearer to what is asked.
pub fn run(work: &mut Work<'_>) {
    // All Services first: functions name each other's in their configuration.
    for key in work.keys::<NetworkFunction>() {
        ensure_service(work, &key);
    }
    vip::run(work);
    for key in work.keys::<NetworkFunction>() {
        let key = &key;
        let Some(function) = work.get::<NetworkFunction>(key) else {
            continue;
        };
        if function.metadata.deletion_timestamp.is_some() {
            undeploy::run(work, key);
            continue;
        }
        ensure_finalizer(work, key);
        match render::blueprint(work, function) {
            Ok(blueprint) => {
                operation::revised(work, &blueprint.function, &blueprint.revision);
                ensure_config_map(work, &blueprint);
                scale::run(work, &blueprint);
                claims::run(work, &blueprint);
                instances::run(work, &blueprint);
                drop_old_config_maps(work, &blueprint);
            }
            Err(Unmade::Problem(problem)) => {
                work.problems.insert(key.clone(), problem);
            }
            Err(Unmade::Flaw(flaw)) => {
                work.problems.insert(key.clone(), flaw.message.clone());
                work.flaws.insert(key.clone(), flaw);
            }
            Err(Unmade::Later) => {}
        }
    }
}

/// Name of the package object of a function.
pub fn package_key(function: &NetworkFunction) -> Key {
    Key::new(
        "",
        &format!("{}-{}", function.spec.package, function.spec.version),
    )
}

/// Whether the size that the function last gave the pod is the one that it asks for now.
pub fn is_sized_as_asked(function: &NetworkFunction, pod: &Pod) -> bool {
    meta::annotation(&pod.metadata, pods::SIZED_BY) == Some(&template::size_of(&function.spec))
}

/// Metadata of an object that belongs to a function.
pub(super) fn child_meta(function: &ObjectMeta, name: String, revision: Option<&str>) -> ObjectMeta {
    let mut labels = meta::pairs(&[(labels::NF, meta::name(function))]);
    if let Some(service) = meta::label(function, labels::SERVICE) {
        labels.insert(labels::SERVICE.to_owned(), service.to_owned());
    }
    if let Some(revision) = revision {
        labels.insert(labels::REVISION.to_owned(), revision.to_owned());
    }
    ObjectMeta {
        name: Some(name),
        namespace: function.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![meta::owner(
            "gantry.dev/v1",
            NetworkFunction::KIND,
            function,
        )]),
        ..Default::default()
    }
}

fn ensure_finalizer(work: &mut Work<'_>, key: &Key) {
    let has = |f: &NetworkFunction| f.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    if work.get::<NetworkFunction>(key).is_some_and(|f| !has(&f))
        && let Some(function) = work.edit::<NetworkFunction>(key)
    {
        function
            .metadata
            .finalizers
            .get_or_insert_default()
            .push(FINALIZER.to_owned());
    }
}

fn ensure_service(work: &mut Work<'_>, key: &Key) {
    let Some(function) = work.get::<NetworkFunction>(key) else {
        return;
    };
    let Some(package) = work.get::<NfPackage>(&package_key(&function)) else {
        return;
    };
    let ports = ports(&package.spec);
    if ports.is_empty() || function.metadata.deletion_timestamp.is_some() {
        return;
    }
    match work.get::<Service>(key) {
        None => {
            let headless = package.spec.headless;
            let spec = ServiceSpec {
                selector: Some(meta::pairs(&[(labels::NF, &key.name)])),
                ports: Some(ports),
                type_: Some("ClusterIP".to_owned()),
                cluster_ip: headless.then(|| vip::HEADLESS.to_owned()),
                ..Default::default()
            };
            let metadata = child_meta(&function.metadata, key.name.clone(), None);
            work.create(Service {
                metadata,
                spec: Some(spec),
                status: None,
            });
        }
        Some(old) if !meta::controls(&function.metadata, &old.metadata) => {
            let problem = format!(
                "a Service `{}` exists and is not part of this function: delete it or choose another name",
                key.name
            );
            work.problems.insert(key.clone(), problem);
        }
        Some(old) => {
            let turned = vip::is_headless(&old) != package.spec.headless;
            if let Some(spec) = work.edit::<Service>(key).and_then(|s| s.spec.as_mut()) {
                spec.ports = Some(ports);
                if turned {
                    spec.cluster_ip = package.spec.headless.then(|| vip::HEADLESS.to_owned());
                    spec.cluster_ips = None;
                }
            }
        }
    }
}

fn ports(package: &NfPackageSpec) -> Vec<ServicePort> {
    let served = package.interfaces.iter().filter(|i| i.service);
    let port = |i: &gantry_catalog::Interface| ServicePort {
        name: Some(i.name.clone()),
        port: i32::from(i.port),
        target_port: Some(IntOrString::Int(i32::from(i.port))),
        protocol: Some(
            match i.transport {
                Transport::Tcp => "TCP",
                Transport::Udp => "UDP",
                Transport::Sctp => "SCTP",
            }
            .to_owned(),
        ),
        ..Default::default()
    };
    served.map(port).collect()
}

/// Name of the ConfigMap of a revision.
pub(super) fn config_map_name(function: &ObjectMeta, revision: &str) -> String {
    format!("{}-{revision}", meta::name(function))
}

fn ensure_config_map(work: &mut Work<'_>, blueprint: &Blueprint) {
    let function = &blueprint.function.metadata;
    let name = config_map_name(function, &blueprint.revision);
    let key = Key::new(meta::namespace(function), &name);
    if !blueprint.package.spec.config.is_empty() && !work.objects.config_maps.contains_key(&key) {
        let mut metadata = child_meta(function, name, Some(&blueprint.revision));
        let (annotation, made_from) = blueprint.made_from().annotation();
        meta::annotate(&mut metadata, annotation, Some(made_from));
        work.create(ConfigMap {
            metadata,
            data: Some(blueprint.files.clone()),
            immutable: Some(true),
            ..Default::default()
        });
    }
}

/// ConfigMaps of revisions that no pod runs any more.
fn drop_old_config_maps(work: &mut Work<'_>, blueprint: &Blueprint) {
    let function = &blueprint.function.metadata;
    let pods = work.pods_of(function);
    let in_use = |revision: Option<&str>| {
        revision == Some(&blueprint.revision)
            || pods
                .iter()
                .any(|p| meta::label(&p.metadata, labels::REVISION) == revision)
    };
    let maps = work.objects.config_maps.iter();
    let stale: Vec<Key> = maps
        .filter(|(_, m)| {
            meta::controls(function, &m.metadata) && !in_use(meta::label(&m.metadata, labels::REVISION))
        })
        .map(|(key, _)| key.clone())
        .collect();
    stale.iter().for_each(|key| work.remove::<ConfigMap>(key));
}
