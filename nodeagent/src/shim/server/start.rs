//! Starting a container: what is asked, what came of it, and what is said about it.

use std::fs;

use gantry_nodeagent_api::{EndReason, is_container_name};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::launch::{self, LaunchError, Launched};
use super::super::log::{LogFile, Stream};
use super::super::oom::OomCount;
use super::{Container, Open, Server, end, now_ms};
use crate::runtime::{ContainerExit, ContainerStart, ContainerState, EndedAttempt};

/// Exit code of a container whose program could not be run, as Kubernetes' runtimes have it.
const CANNOT_RUN: i32 = 128;

impl Server {
    pub(super) fn start(&mut self, start: ContainerStart) -> Result<ContainerState, String> {
        self.check(&start)?;
        let name = start.name.clone();
        let failed = |reason: String| format!("cannot start container `{name}`: {reason}");
        let log = LogFile::open(start.log_path.clone(), start.log_max_bytes)
            .map_err(|e| failed(format!("cannot open its log {}: {e}", start.log_path.display())))?;
        let oom = start.oom_events.as_deref().map(OomCount::begin);
        let launched = launch::launch(&self.dir, &start).inspect_err(|_| self.kill_strays());
        let mut state = ContainerState {
            name: name.clone(),
            attempt: start.attempt,
            pid: 0,
            started_at_ms: now_ms(),
            exit: None,
            before: self.containers.get(&name).and_then(|c| ended_attempt(&c.state)),
        };
        let Launched { pid, stdout, stderr } = match launched {
            Ok(launched) => launched,
            Err(LaunchError::Failed(reason)) => return Err(failed(reason)),
            Err(LaunchError::CannotRun(reason)) => return Ok(self.never_ran(state, reason)),
        };
        state.pid = pid;
        let streams = vec![Stream::new("stdout", stdout), Stream::new("stderr", stderr)];
        let open = Some(Open {
            start,
            log,
            streams,
            oom,
        });
        self.containers.insert(
            name.clone(),
            Container {
                state: state.clone(),
                open,
            },
        );
        if let Err(e) = self.record(&state) {
            // Without a record a later agent would not know of it. Its end is recorded like any other, if that works.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            return Err(format!("cannot record the start of container `{name}`: {e}"));
        }
        self.tell(&state);
        Ok(state)
    }

    fn check(&self, start: &ContainerStart) -> Result<(), String> {
        let name = &start.name;
        // It becomes a part of paths.
        if !is_container_name(name) {
            return Err(format!(
                "`{name}` is no container name: use lower-case letters, digits and `-`"
            ));
        }
        let Some(former) = self.containers.get(name) else {
            return Ok(());
        };
        let attempt = former.state.attempt;
        if former.open.is_some() {
            return Err(format!("container `{name}` is running (attempt {attempt})"));
        }
        if start.attempt <= attempt {
            return Err(format!("attempt {attempt} of container `{name}` is over"));
        }
        Ok(())
    }

    /// A program that cannot be run is a run that ended at once.
    fn never_ran(&mut self, mut state: ContainerState, reason: String) -> ContainerState {
        state.exit = Some(ContainerExit {
            message: reason,
            ..end(CANNOT_RUN, None, EndReason::StartError)
        });
        let container = Container {
            state: state.clone(),
            open: None,
        };
        self.containers.insert(state.name.clone(), container);
        self.record_end(&state);
        self.tell(&state);
        state
    }

    /// Ends what a failed start may have left: children that are no container's first process (`proc_tid_children(5)`).
    fn kill_strays(&self) {
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        for pid in children
            .split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok())
        {
            if !self
                .containers
                .values()
                .any(|c| c.open.is_some() && c.state.pid == pid)
            {
                // ESRCH: it has just ended by itself.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

fn ended_attempt(state: &ContainerState) -> Option<EndedAttempt> {
    Some(EndedAttempt {
        attempt: state.attempt,
        started_at_ms: state.started_at_ms,
        exit: state.exit.clone()?,
    })
}
