//! Whose handling a pass is at. When it ends in a panic (a defect), that object is set apart, and the next pass goes on without
//! it: a defect that one object brings out stops no other.

use std::cell::RefCell;
use std::rc::Rc;

use super::world::{KINDS, Key, Work, World};

/// Looks at each object whose handling begins. For tests; nobody else has anything to do then.
pub type Probe = fn(&'static str, &Key);

/// Owners of owners that are gone through for one that can be set apart.
const GENERATIONS: usize = 8;

/// The object at hand.
pub struct At {
    object: Rc<RefCell<Option<(&'static str, Key)>>>,
    probe: Probe,
}

impl At {
    /// Nothing is at hand.
    pub fn new(probe: Probe) -> Self {
        Self {
            object: Rc::default(),
            probe,
        }
    }

    /// From now on it is this one's handling.
    pub fn object(&self, kind: &'static str, key: &Key) {
        self.object.replace(Some((kind, key.clone())));
        (self.probe)(kind, key);
    }

    /// Nobody's any more.
    pub fn nothing(&self) {
        self.object.replace(None);
    }

    /// The keys, each at hand while the loop is at it.
    pub fn walk(&self, kind: &'static str, keys: Vec<Key>) -> impl Iterator<Item = Key> + use<> {
        let at = Self {
            object: self.object.clone(),
            probe: self.probe,
        };
        let mut keys = keys.into_iter();
        std::iter::from_fn(move || {
            let key = keys.next();
            match &key {
                Some(key) => at.object(kind, key),
                None => at.nothing(),
            }
            key
        })
    }
}

/// Whom to set apart for what the pass ended with; for an object that the pass itself has made, its owner.
pub fn at_fault(world: &World, work: &Work<'_>) -> Option<(&'static str, Key)> {
    let (mut kind, mut key) = work.at.object.borrow().clone()?;
    for _ in 0..GENERATIONS {
        if world.objects.get(kind, &key).is_some() {
            return Some((kind, key));
        }
        let object = work.objects.get(kind, &key)?;
        let owners = object.meta().owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|o| o.controller == Some(true))?;
        kind = KINDS.iter().map(|(kind, ..)| *kind).find(|k| *k == owner.kind)?;
        key = Key::new(&key.namespace, &owner.name);
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Action;
    use super::super::lab::Lab;
    use super::super::quarantine::LIST;
    use super::*;

    fn trip(kind: &'static str, key: &Key) {
        assert!(
            key.name != "bad" || !["NetworkFunction", "Service"].contains(&kind),
            "{kind} {key} is too much"
        );
    }

    /// The pods of one that is there already run on, all others are served.
    #[test]
    fn an_object_whose_handling_panics_is_set_apart_and_the_others_go_on() {
        let mut lab = Lab::new(&["n"]);
        for name in ["bad", "good"] {
            lab.publish(name, "1.0.0", json!({}));
            lab.deploy(name, json!({}));
        }
        lab.settle();
        lab.run_for(2_000);
        let running = lab.pods("bad");
        assert_eq!(running.len(), 1);
        lab.world.probe = trip;
        lab.tolerant = true;
        lab.change("good", |spec| spec.replicas = 2);
        lab.change("bad", |spec| spec.replicas = 2);
        let told = lab.settle();
        assert!(told.contains(&"bad HandlingFailed".to_owned()), "{told:?}");
        lab.run_for(2_000);
        assert_eq!(lab.function("good").status.ready_replicas, 2);
        assert_eq!(lab.pods("bad"), running, "left as they are");
        let key = Key::new("default", "bad");
        let why = &lab.world.quarantine[&("NetworkFunction", key.clone())].why;
        assert!(why.contains("is too much"), "{why}");
        assert!(
            lab.world
                .objects
                .config_maps
                .contains_key(&Key::new("kube-system", LIST))
        );
        let config = &lab.world.configs["n"];
        assert!(running.values().all(|uid| config.pods.contains_key(uid)));
        assert!(config.services["default/bad"].ports[0].backends.len() == 1);
    }

    #[test]
    fn what_the_pass_itself_has_made_is_its_owners_fault() {
        let mut lab = Lab::new(&["n"]);
        lab.publish("good", "1.0.0", json!({}));
        lab.deploy("good", json!({}));
        lab.settle();
        lab.world.probe = |kind, _| assert!(kind != "Pod", "{kind}");
        lab.tolerant = true;
        lab.publish("late", "1.0.0", json!({}));
        lab.deploy("late", json!({}));
        lab.settle();
        let apart: Vec<String> = lab
            .world
            .quarantine
            .keys()
            .map(|(kind, _)| (*kind).to_owned())
            .collect();
        assert!(
            apart.contains(&"NetworkFunction".to_owned()) && apart.contains(&"Pod".to_owned()),
            "{apart:?}"
        );
    }

    #[test]
    fn where_nobody_is_at_fault_nothing_is_done() {
        let mut lab = Lab::new(&["n"]);
        lab.world.probe = |kind, _| assert!(kind != "Node", "{kind}");
        lab.tolerant = true;
        let actions = lab.pass();
        assert!(
            matches!(&*actions, [Action::Failed { at: None, .. }]),
            "{actions:?}"
        );
    }
}
