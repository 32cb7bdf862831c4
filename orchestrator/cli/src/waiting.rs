//! Waiting until what was written has come about: operations, with patience for a control plane that restarts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gantry_api::{NetworkFunction, NetworkFunctionStatus, Operation, OperationPhase};
use serde_json::{Value, json};

use crate::args::{Output, Wait};
use crate::client::{Client, is_refusal};
use crate::operation::{belongs_to, receipt_text};
use crate::output::{self, Progress};

const POLL: Duration = Duration::from_millis(150);

/// How long nobody may answer. The control plane may be restarting, and operations go on without it.
const OUTAGE: Duration = Duration::from_secs(180);

/// How long to wait, and how long without an answer.
pub struct Patience {
    started: Instant,
    timeout_s: u64,
    last_answer: Instant,
}

impl Patience {
    pub fn new(wait: &Wait) -> Self {
        let now = Instant::now();
        Self {
            started: now,
            timeout_s: wait.timeout,
            last_answer: now,
        }
    }

    /// The answer, or `None` while the control plane may be restarting.
    pub fn answer<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        self.answer_at(result, Instant::now())
    }

    fn answer_at<T>(&mut self, result: Result<T>, now: Instant) -> Result<Option<T>> {
        match result {
            Ok(answer) => {
                self.last_answer = now;
                Ok(Some(answer))
            }
            Err(error) if !is_refusal(&error) && now - self.last_answer < OUTAGE => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Until the next look; fails with `what` when the time that the user gave is over.
    pub async fn pause(&self, what: impl FnOnce() -> String) -> Result<()> {
        if self.timeout_s > 0 && self.started.elapsed().as_secs() >= self.timeout_s {
            bail!(
                "{} after {} s; it goes on: see `gantry status`",
                what(),
                self.timeout_s
            );
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

/// A change of a function that was written.
#[derive(Debug)]
pub struct Change {
    namespace: String,
    function: String,
    uid: String,
    generation: i64,
}

impl Change {
    /// From the function as the API server returned it.
    pub fn of(function: &Value) -> Result<Self> {
        let metadata = &function["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            namespace: text("namespace"),
            function: text("name"),
            uid: text("uid"),
            generation: metadata["generation"]
                .as_i64()
                .context("the API server's answer has no generation")?,
        })
    }

    /// Name of its operation.
    fn operation(&self) -> String {
        format!("{}-{}", self.function, self.generation)
    }
}

/// What there is to say about a change.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Under way, in words.
    Wait(String),
    /// Its operation has ended.
    Ended,
    /// It asks nothing that was not so already.
    Nothing,
    /// A newer change of the same function was seen first: this one never gets an operation.
    Superseded,
    /// The function is gone.
    Gone,
    /// Its templates cannot be rendered, and why: it never gets an operation as it is.
    Flawed(String),
}

/// `function` was read before `operation`: both are written at once, so one that saw the change has its operation, or never will.
fn judge(change: &Change, operation: Option<&Operation>, function: Option<&NetworkFunction>) -> Verdict {
    if let Some(operation) = operation {
        return match operation.status.phase {
            OperationPhase::Running => Verdict::Wait(operation.status.message.clone()),
            _ => Verdict::Ended,
        };
    }
    let Some(function) = function.filter(|f| f.metadata.uid.as_deref() == Some(&change.uid)) else {
        return Verdict::Gone;
    };
    if let Some(why) = flaw(&function.status, change.generation) {
        Verdict::Flawed(why)
    } else if function.status.observed_generation < change.generation {
        Verdict::Wait("planning".to_owned())
    } else if function.status.observed_generation > change.generation {
        Verdict::Superseded
    } else {
        Verdict::Nothing
    }
}

fn flaw(status: &NetworkFunctionStatus, generation: i64) -> Option<String> {
    let known = status.conditions.iter().find(|condition| {
        condition.type_ == NetworkFunctionStatus::TEMPLATE_FAILURE
            && condition.status == "True"
            && condition.observed_generation == Some(generation)
    });
    known.map(|condition| condition.message.clone())
}

/// Waits until the operations of all changes have ended, prints their receipts, and fails if one did not succeed.
pub async fn finish(client: &Client, changes: &[Change], wait: &Wait, output: Output) -> Result<()> {
    if wait.no_wait {
        let names: Vec<String> = changes.iter().map(Change::operation).collect();
        return output::print(output, &json!({"started": names}), || {
            let lines = names
                .iter()
                .map(|n| format!("operation {n} started; see `gantry receipt {n}`\n"));
            lines.collect()
        });
    }
    let mut patience = Patience::new(wait);
    let mut ended = Vec::new();
    let mut result = Ok(());
    for change in changes {
        match wait_for(client, change, &mut patience).await {
            Ok(Some(operation)) => {
                result = result.and(ensure_succeeded(&operation));
                ended.push(operation);
            }
            Ok(None) => {}
            Err(error) => {
                result = result.and(Err(error));
                break;
            }
        }
    }
    if ended.is_empty() && result.is_err() {
        return result;
    }
    print(&ended, changes.len() == 1, output)?;
    result
}

/// One document: an object for one change, else a list.
fn print(ended: &[Operation], single: bool, output: Output) -> Result<()> {
    let text = || match ended {
        [] => "everything is already as asked\n".to_owned(),
        some => some.iter().map(receipt_text).collect(),
    };
    match ended {
        [one] if single => output::print(output, one, text),
        all => output::print(output, &all, text),
    }
}

/// Its operation once that has ended; `None` if there was nothing to do.
async fn wait_for(client: &Client, change: &Change, patience: &mut Patience) -> Result<Option<Operation>> {
    let name = change.operation();
    let mut progress = Progress::new(&format!("{name}: planning"));
    let mut state = "planning".to_owned();
    loop {
        let looked = patience.answer(look(client, change).await)?;
        if let Some((operation, function)) = looked {
            match judge(change, operation.as_ref(), function.as_ref()) {
                Verdict::Wait(message) => state = message,
                Verdict::Ended => return Ok(operation),
                Verdict::Nothing => return Ok(None),
                Verdict::Superseded => bail!("{name} was replaced by a newer change of {}", change.function),
                Verdict::Gone => bail!("{} was removed meanwhile", change.function),
                Verdict::Flawed(why) => bail!("{name} cannot be done: {why}"),
            }
        } else {
            "waiting for the API server".clone_into(&mut state);
        }
        progress.set(&format!("{name}: {state}"));
        patience
            .pause(|| format!("operation {name} still runs ({state})"))
            .await?;
    }
}

/// The function, then the change's operation.
async fn look(client: &Client, change: &Change) -> Result<(Option<Operation>, Option<NetworkFunction>)> {
    let own = |plural, name: &str| format!("{}/{name}", Client::own_in(&change.namespace, plural));
    let function = client
        .find(&own(NetworkFunction::PLURAL, &change.function))
        .await?;
    let operation: Option<Operation> = client.find(&own(Operation::PLURAL, &change.operation())).await?;
    // A function of the same name that is gone may have left one.
    Ok((operation.filter(|o| belongs_to(o, &change.uid)), function))
}

fn ensure_succeeded(operation: &Operation) -> Result<()> {
    let name = operation.metadata.name.as_deref().unwrap_or_default();
    match operation.status.phase {
        OperationPhase::Succeeded => Ok(()),
        OperationPhase::Superseded => {
            bail!("operation {name} was replaced by a newer change of the same function")
        }
        OperationPhase::Failed | OperationPhase::Running => {
            bail!("operation {name} failed: {}", operation.status.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        let metadata = json!({"namespace": "default", "name": "f", "uid": "u", "generation": 3});
        Change::of(&json!({"metadata": metadata})).unwrap()
    }

    fn function(uid: &str, observed_generation: i64) -> NetworkFunction {
        let mut function = NetworkFunction::default();
        function.metadata.uid = Some(uid.to_owned());
        function.status.observed_generation = observed_generation;
        function
    }

    #[test]
    fn a_change_without_an_operation_comes_to_an_end() {
        let judge = |observed| judge(&change(), None, Some(&function("u", observed)));
        assert_eq!(judge(2), Verdict::Wait("planning".to_owned()));
        assert_eq!(judge(3), Verdict::Nothing);
        assert_eq!(judge(4), Verdict::Superseded);
    }

    #[test]
    fn templates_that_cannot_be_rendered_end_the_wait_for_that_change() {
        let flawed = |generation: i64| {
            let mut function = function("u", 2);
            let condition = json!({
                "type": "TemplateFailure", "status": "True", "reason": "TemplateInvalid", "message": "a.cfg:3",
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            function.status.conditions = vec![serde_json::from_value(condition).unwrap()];
            judge(&change(), None, Some(&function))
        };
        assert_eq!(flawed(2), Verdict::Wait("planning".to_owned()));
        assert_eq!(flawed(3), Verdict::Flawed("a.cfg:3".to_owned()));
    }

    #[test]
    fn a_function_that_is_gone_or_another_of_its_name_ends_the_wait() {
        assert_eq!(judge(&change(), None, None), Verdict::Gone);
        assert_eq!(judge(&change(), None, Some(&function("other", 1))), Verdict::Gone);
    }

    #[test]
    fn the_operation_says_how_far_it_is() {
        let mut operation = Operation::default();
        operation.status.message = "1/2 ready".to_owned();
        assert_eq!(
            judge(&change(), Some(&operation), None),
            Verdict::Wait("1/2 ready".to_owned())
        );
        operation.status.phase = OperationPhase::Succeeded;
        assert_eq!(judge(&change(), Some(&operation), None), Verdict::Ended);
    }

    #[test]
    fn an_outage_is_counted_from_the_last_answer() {
        let wait = Wait {
            no_wait: false,
            timeout: 0,
        };
        let mut patience = Patience::new(&wait);
        let start = patience.last_answer;
        let at = |s| start + Duration::from_secs(s);
        let down = || Err::<(), _>(anyhow::anyhow!("no answer"));
        assert!(patience.answer_at(down(), at(170)).unwrap().is_none());
        assert!(patience.answer_at(Ok(()), at(175)).unwrap().is_some());
        assert!(patience.answer_at(down(), at(350)).unwrap().is_none());
        assert!(patience.answer_at(down(), at(356)).is_err());
    }
}
