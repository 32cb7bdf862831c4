//! What the core asks the shell to do.

use std::sync::Arc;

use gantry_nodeagent_api::NodeConfig;
use gantry_plan::{Plan, Violation};

use super::nf::Rendering;
use super::world::{Key, Object};

/// One effect. The shell carries them out in order and stops at the first conflict: the next pass sees fresh state.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Replace the plan, if it is still the parent.
    CommitPlan {
        /// Number of the plan that must be in force.
        parent: u64,
        /// The next one.
        plan: Plan,
    },
    /// Write a new object.
    Create(Object),
    /// Replace an object, if it still has the resourceVersion in the metadata.
    Update(Object),
    /// The same; only the status differs.
    UpdateStatus(Object),
    /// Take an object out, if it still has this version.
    Delete {
        /// Kind.
        kind: &'static str,
        /// Which.
        key: Key,
        /// Version it must have.
        resource_version: String,
    },
    /// Persist the configuration if it is new, then send it to the agent if there is a stream.
    SendConfig {
        /// The node.
        node: String,
        /// Everything it has to be.
        config: Arc<NodeConfig>,
    },
    /// Forget a node's configuration and its agent.
    ForgetNode(String),
    /// Say loudly that the planner's answer broke its own rules, and that the plan in force stays: a defect.
    RefusePlan(Vec<Violation>),
    /// Render templates, beside everything else, and put the answer into the world.
    Render(Box<Rendering>),
    /// Deciding ended in a panic, and nothing else is to be done: set the object at fault apart, if it is known.
    Failed {
        /// Kind and key of the object.
        at: Option<(&'static str, Key)>,
        /// What the panic said.
        why: String,
    },
    /// Write an Event.
    EmitEvent(EventNote),
}

/// What people should be told about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Kind of the object.
    pub kind: &'static str,
    /// Which.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// True for `Warning`, false for `Normal`.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}
