//! What an image says about how to run it.

use oci_spec::image::ImageConfiguration;

use crate::signal::signal_number;

/// The part of the OCI image configuration that a runtime needs (image spec, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Command prefix.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the command where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// Absolute directory; empty means `/`.
    pub working_dir: String,
    /// Directories that an image wants to have, made where they are missing (`VOLUME` of a Dockerfile).
    pub volumes: Vec<String>,
    /// Signal name such as `SIGTERM`; empty means the runtime's default.
    pub stop_signal: String,
}

impl ImageConfig {
    /// Takes what is needed from an OCI image configuration.
    pub fn from_oci(oci: &ImageConfiguration) -> Self {
        let Some(c) = oci.config() else {
            return Self::default();
        };
        Self {
            entrypoint: c.entrypoint().clone().unwrap_or_default(),
            cmd: c.cmd().clone().unwrap_or_default(),
            env: c.env().clone().unwrap_or_default(),
            user: c.user().clone().unwrap_or_default(),
            working_dir: c.working_dir().clone().unwrap_or_default(),
            volumes: c.volumes().clone().unwrap_or_default(),
            stop_signal: c.stop_signal().clone().unwrap_or_default(),
        }
    }
}

impl ImageConfig {
    /// The signal that asks it to end; `None` means the runtime's default, or a name that is none.
    pub fn stop_signal_number(&self) -> Option<i32> {
        signal_number(&self.stop_signal)
    }

    /// What would keep a container of it from starting, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        if !self.working_dir.is_empty() && !self.working_dir.starts_with('/') {
            return Some(format!(
                "its working directory `{}` is not absolute",
                self.working_dir.escape_debug()
            ));
        }
        if !self.stop_signal.is_empty() && self.stop_signal_number().is_none() {
            let signal = self.stop_signal.escape_debug();
            return Some(format!("its stop signal `{signal}` does not exist"));
        }
        let nameless = |line: &&String| line.split_once('=').is_none_or(|(name, _)| name.is_empty());
        if let Some(line) = self.env.iter().find(nameless) {
            let line = line.escape_debug();
            return Some(format!("its environment has `{line}`, which is not NAME=VALUE"));
        }
        let words = self.entrypoint.iter().chain(&self.cmd).chain(&self.env);
        let zero = |text: &&String| text.contains('\0');
        let mut words = words.chain(&self.volumes).chain([&self.user, &self.working_dir]);
        words.find(zero).map(|text| format!("{text:?} has a zero byte"))
    }
}
