//! Templates that are being rendered, beside the passes: a few at a time, each namespace in its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use gantry_catalog::Answer;
use tokio::sync::mpsc;

use crate::core::{Rendering, Whose, World};
use crate::renderer::Renderer;

/// Processes at one time.
const AT_ONCE: usize = 2;
/// So long after a failure that no template is to blame for.
const RETRY: Duration = Duration::from_secs(1);

/// A rendering and what came of it.
pub(super) type Ended = (Rendering, io::Result<Answer>);

/// What is rendered, and what is to be.
pub(super) struct Renderings {
    renderer: Renderer,
    wanted: Vec<Rendering>,
    running: BTreeSet<Whose>,
    /// When each namespace had its last turn.
    turns: BTreeMap<String, u64>,
    turn: u64,
    done: mpsc::UnboundedSender<Ended>,
    answers: mpsc::UnboundedReceiver<Ended>,
}

impl Renderings {
    pub fn new(renderer: Renderer) -> Self {
        let (done, answers) = mpsc::unbounded_channel();
        Self {
            renderer,
            wanted: Vec::new(),
            running: BTreeSet::new(),
            turns: BTreeMap::new(),
            turn: 0,
            done,
            answers,
        }
    }

    /// What the last pass asked for, in the place of what earlier ones did.
    pub fn want(&mut self, renderings: Vec<Rendering>) {
        self.turns
            .retain(|namespace, _| renderings.iter().any(|r| r.key.namespace == *namespace));
        self.wanted = renderings;
        self.start();
    }

    /// Waits until one has ended. Cancel-safe.
    pub async fn ended(&mut self) -> Option<Ended> {
        self.answers.recv().await
    }

    /// Takes one that has ended, and all others that have by now, into the world.
    pub fn take(&mut self, ended: Ended, world: &mut World) {
        let mut next = Some(ended);
        while let Some((rendering, answer)) = next {
            let whose = rendering.whose();
            self.running.remove(&whose);
            // It was asked for again meanwhile; the next pass knows whether with something new.
            self.wanted.retain(|wanted| wanted.whose() != whose);
            match answer {
                Ok(answer) => world.answered(rendering, answer),
                // The core asks again.
                Err(error) => {
                    tracing::error!(%error, function = %rendering.key, "cannot render templates; trying again");
                }
            }
            next = self.answers.try_recv().ok();
        }
        self.start();
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE {
            let free = self.wanted.iter().enumerate();
            let free = free.filter(|(_, r)| !self.running.contains(&r.whose()));
            let last = |r: &Rendering| self.turns.get(&r.key.namespace).copied().unwrap_or(0);
            // What all instances of a function share comes before the files of one.
            let Some((index, _)) = free.min_by_key(|(index, r)| (last(r), r.whose().1.is_some(), *index))
            else {
                return;
            };
            let rendering = self.wanted.remove(index);
            self.turn += 1;
            self.turns.insert(rendering.key.namespace.clone(), self.turn);
            self.running.insert(rendering.whose());
            let (renderer, done) = (self.renderer.clone(), self.done.clone());
            tokio::task::spawn_blocking(move || {
                let answer = renderer.render(&rendering.job());
                if answer.is_err() {
                    std::thread::sleep(RETRY);
                }
                // Nobody waits for it any more when the shell has ended.
                let _ended = done.send((rendering, answer));
            });
        }
    }
}
