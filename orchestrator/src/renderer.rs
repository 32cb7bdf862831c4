//! Templates are rendered in a process of their own: one expression may take all memory and time that there is, and there both
//! have a bound of the kernel's.
//!
//! The process is this binary again (`gantry render`). It reads a [`Job`] as JSON from its standard input, and writes lines: the
//! name of each template that it comes to, then the [`Answer`]. When it dies, the last name says whose fault that was.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use gantry_catalog::{Answer, Bounds, Job, TemplateProblem, TemplateReason};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// The command that is [`serve`].
pub const COMMAND: &str = "render";
/// An answer is at most so many times as long as the files in it: JSON writes a control character as six.
const ESCAPED: usize = 6;
/// What an answer has beside the files, in bytes: names, removed lines, messages.
const BESIDE: usize = 8 << 20;

/// Who renders.
#[derive(Clone, Debug)]
pub enum Renderer {
    /// A process of this binary for each job.
    Process(PathBuf),
    /// Whoever asks, where only steps and bytes have bounds: for templates that are one's own.
    Here,
}

/// A line from the process.
#[derive(Serialize, Deserialize)]
enum Line {
    At(String),
    Answer(Answer),
}

impl Renderer {
    /// This binary.
    pub fn of_this_binary() -> Self {
        // What runs, whatever has come into the file's place since.
        Self::Process(PathBuf::from("/proc/self/exe"))
    }

    /// Does a job, and waits for it: a few milliseconds, and never longer than its bounds. An error is no fault of the
    /// templates: it can be tried again.
    pub fn render(&self, job: &Job) -> io::Result<Answer> {
        match self {
            Self::Here => Ok(job.run(|_| ())),
            Self::Process(binary) => {
                let mut at = String::new();
                Ok(match in_process(binary, job, &mut at)? {
                    Outcome::Answer(answer) => answer,
                    Outcome::Died(status, stderr) => {
                        let (reason, message) = died(status, &stderr, &job.bounds)?;
                        Err(vec![TemplateProblem::whole(reason, &at, message)])
                    }
                })
            }
        }
    }
}

enum Outcome {
    Answer(Answer),
    Died(ExitStatus, String),
}

fn died(status: ExitStatus, stderr: &str, bounds: &Bounds) -> io::Result<(TemplateReason, String)> {
    use std::os::unix::process::ExitStatusExt;
    /// From somebody else, and of CPU time (`signal(7)`).
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    let said = match (status.signal(), bounds.cpu_seconds, bounds.memory_bytes) {
        (Some(SIGKILL), ..) => return Err(io::Error::other("the process that renders was killed")),
        (Some(SIGXCPU), Some(seconds), _) => {
            let message = format!("it takes more than {seconds} s of CPU time: let it do less");
            (TemplateReason::TooExpensive, message)
        }
        (Some(_), _, Some(bytes)) if stderr.contains("memory allocation") => {
            let message = format!(
                "it takes more than {} MiB of memory: let it make less",
                bytes >> 20
            );
            (TemplateReason::TooExpensive, message)
        }
        _ => {
            let last = stderr.lines().last().unwrap_or_default();
            (
                TemplateReason::Invalid,
                format!("rendering it ended with {status}: {last}"),
            )
        }
    };
    Ok(said)
}

/// `at` is the template that the process has come to.
fn in_process(binary: &Path, job: &Job, at: &mut String) -> io::Result<Outcome> {
    let mut child = Command::new(binary)
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = serde_json::to_vec(job)?;
    // It reads all of it before it writes, so that neither waits for the other; one that is dead already is told by its status.
    let _dead = child.stdin.take().map(|mut stdin| stdin.write_all(&input));
    let most = job.bounds.bytes.saturating_mul(ESCAPED).saturating_add(BESIDE);
    let answer = match child.stdout.take() {
        Some(stdout) => answer(BufReader::new(stdout.take(most as u64)), at),
        None => Ok(None),
    };
    let mut stderr = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        pipe.take(4096).read_to_end(&mut stderr)?;
    }
    let status = child.wait()?;
    Ok(match answer? {
        Some(answer) => Outcome::Answer(answer),
        None => Outcome::Died(status, String::from_utf8_lossy(&stderr).into_owned()),
    })
}

fn answer(lines: impl BufRead, at: &mut String) -> io::Result<Option<Answer>> {
    for line in lines.lines() {
        match serde_json::from_str(&line?)? {
            Line::At(name) => *at = name,
            Line::Answer(answer) => return Ok(Some(answer)),
        }
    }
    Ok(None)
}

/// The process itself: one job from standard input, the answer to standard output.
pub fn serve() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let job: Job = serde_json::from_slice(&input)?;
    drop(input);
    bind(&job.bounds)?;
    let say = |line: &Line| -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        io::stdout().write_all(&text)
    };
    let mut told = Ok(());
    let answer = job.run(|name| {
        if told.is_ok() {
            told = say(&Line::At(name.to_owned()));
        }
    });
    told?;
    say(&Line::Answer(answer))
}

/// From now on this process has so much memory and time, writes no core, and lets others go first.
fn bind(bounds: &Bounds) -> io::Result<()> {
    let limit = |resource, most: Option<u64>, grace| {
        let limit = Rlimit {
            current: most,
            maximum: most.map(|most| most + grace),
        };
        setrlimit(resource, limit)
    };
    if bounds.memory_bytes.is_some() {
        // Of this kind is what a program asks for; the program itself is not.
        limit(Resource::Data, bounds.memory_bytes, 0)?;
    }
    if bounds.cpu_seconds.is_some() {
        limit(Resource::Cpu, bounds.cpu_seconds, 1)?;
    }
    limit(Resource::Core, Some(0), 0)?;
    rustix::process::nice(10)?;
    Ok(())
}
