//! What a network function is: descriptor types, their YAML form, and the rules they must meet. A leaf: no I/O, no async.

mod catalog;
mod container;
mod context;
mod drain;
mod graph;
mod package;
mod quantity;
mod render;
mod rules;
mod service;
pub mod template;
mod trace;
mod waits;
mod wiring;
mod yaml;

pub use catalog::*;
pub use container::*;
pub use context::*;
pub use drain::*;
pub use graph::{Graph, Link, Node};
pub use package::*;
pub use quantity::{MilliCpu, ParseQuantityError, Quantity};
pub use render::{Answer, Bounds, Job};
pub use rules::{LONGEST_FUNCTION_NAME, MAX_ID, function_name_problem};
pub use service::*;
pub use template::{TemplateProblem, TemplateReason, TemplateSyntax};
pub use trace::{Removed, Traced};
pub use waits::Waits;
pub use wiring::*;
pub use yaml::{DescriptorError, MAX_DESCRIPTOR_BYTES, Problem, locate, parse};
