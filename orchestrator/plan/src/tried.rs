//! Remembers what nodes answered to pods of the same shape: instances of one network function are all alike, and only
//! the node that took the last one has changed since.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::book::Book;
use crate::fit::{Ask, Fit, fit};
use crate::reason::Reason;
use crate::{ContainerRequest, Explanation, NodeName, NumaPolicy, PodRequest};

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
    refused: VecDeque<Refused<'a>>,
}

/// A pod that found no place, why, and how the board stood then.
struct Refused<'a> {
    request: &'a PodRequest,
    changes: u64,
    why: Explanation,
}

impl Refused<'_> {
    /// Whether a pod that asks so gets the same answer.
    fn answers(&self, request: &PodRequest, changes: u64) -> bool {
        let known = self.request;
        self.changes == changes
            && known.containers == request.containers
            && known.numa == request.numa
            && known.node_selector == request.node_selector
            && known.node_name == request.node_name
            && known.anti_affinity == request.anti_affinity
            && known.volumes == request.volumes
            && known.obstacle == request.obstacle
    }
}

impl<'a> Tried<'a> {
    /// Why a pod that holds nothing anywhere has no place, if another that asks the same was just refused: a thousand alike cost one try.
    pub(crate) fn refused(&self, request: &PodRequest, changes: u64) -> Option<Explanation> {
        let found = self.refused.iter().find(|r| r.answers(request, changes))?;
        Some(Explanation {
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            ..found.why.clone()
        })
    }

    /// Remembers a pod that found no place.
    pub(crate) fn refuse(&mut self, request: &'a PodRequest, changes: u64, why: Explanation) {
        self.refused.truncate(SHAPES - 1);
        self.refused.push_front(Refused {
            request,
            changes,
            why,
        });
    }

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
