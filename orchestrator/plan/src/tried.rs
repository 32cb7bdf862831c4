//! Remembers what nodes answered to pods of the same shape: instances of one network function are all alike, and only
//! the node that took the last one has changed since.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::book::Book;
use crate::fit::{Ask, Fit, fit};
use crate::reason::Reason;
use crate::{ContainerRequest, NodeName, NumaPolicy, PodRequest};

/// How many shapes are remembered.
const SHAPES: usize = 16;

/// All of a request that decides how it fits a node.
type Shape<'a> = (&'a [ContainerRequest], NumaPolicy);
/// A node's answer, and the version of its books that it was given for.
type Answers = BTreeMap<NodeName, (u64, Result<Rc<Fit>, Reason>)>;

/// Answers by shape, the newest shape first.
#[derive(Default)]
pub(crate) struct Tried<'a> {
    shapes: VecDeque<(Shape<'a>, Answers)>,
}

impl<'a> Tried<'a> {
    /// As [`fit`], for a pod without a place that asks with `request`; the placement found may carry another pod's name.
    pub(crate) fn fit(
        &mut self,
        version: u64,
        book: &Book<'_>,
        ask: &Ask<'_>,
        request: &'a PodRequest,
    ) -> Result<Rc<Fit>, Reason> {
        if book.state.held.contains_key(ask.uid) {
            return fit(book, ask).map(Rc::new);
        }
        let shape = (request.containers.as_slice(), request.numa);
        let position = self
            .shapes
            .iter()
            .position(|(known, _)| *known == shape)
            .unwrap_or_else(|| {
                self.shapes.truncate(SHAPES - 1);
                self.shapes.push_front((shape, Answers::new()));
                0
            });
        let answers = &mut self.shapes[position].1;
        match answers.get(ask.node) {
            Some((at, answer)) if *at == version => answer.clone(),
            _ => {
                let answer = fit(book, ask).map(Rc::new);
                answers.insert(ask.node.to_owned(), (version, answer.clone()));
                answer
            }
        }
    }
}
