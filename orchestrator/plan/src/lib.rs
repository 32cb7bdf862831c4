//! The planner: `plan(snapshot, current, seed) -> outcome`, pure and deterministic. No clock, no I/O.

mod board;
mod book;
mod check;
mod exclusive;
mod explain;
mod fair;
mod filter;
mod fit;
mod memory;
mod model;
mod place;
mod planner;
mod reason;
mod resize;
mod score;
mod tried;
mod volumes;

pub use check::{Violation, check};
pub use explain::NOT_SCHEDULABLE;
pub use model::*;
pub use planner::plan;
pub use resize::grants;
