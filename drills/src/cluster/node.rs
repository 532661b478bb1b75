//! One node: its folder, its ports, its process.

use std::fmt::Write;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::free_address;
use crate::Failure;

/// One node of a drill's cluster.
#[derive(Debug)]
pub struct Node {
    pub id: u32,
    pub folder: PathBuf,
    /// Where clients reach it: its own address, or a link's.
    pub kafka: SocketAddr,
    pub http: SocketAddr,
    pub postgres: SocketAddr,
    pub(super) listen_kafka: SocketAddr,
    pub(super) listen_http: SocketAddr,
    pub(super) peer: SocketAddr,
    binary: PathBuf,
    process: Option<Child>,
    paused: bool,
}

impl Node {
    pub(super) fn new(id: u32, binary: &Path, folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (kafka, http) = (free_address()?, free_address()?);
        Ok(Self {
            id,
            folder: folder.to_owned(),
            kafka,
            http,
            postgres: free_address()?,
            listen_kafka: kafka,
            listen_http: http,
            peer: free_address()?,
            binary: binary.to_owned(),
            process: None,
            paused: false,
        })
    }

    /// Writes `seawall.toml`.
    pub(super) fn configure(&self, settings: &[(&'static str, String)]) -> Result<(), Failure> {
        let mut all = vec![
            ("node.id", self.id.to_string()),
            ("node.data_dir", self.data_dir().display().to_string()),
            ("listen.kafka", self.listen_kafka.to_string()),
            ("listen.http", self.listen_http.to_string()),
            ("listen.postgres", self.postgres.to_string()),
            ("listen.peer", self.peer.to_string()),
            ("log.disk_reserve_bytes", "64MiB".to_owned()),
        ];
        if self.kafka != self.listen_kafka {
            all.push(("listen.advertised_kafka", self.kafka.to_string()));
        }
        for (key, value) in settings {
            all.retain(|(name, _)| name != key);
            all.push((key, value.clone()));
        }
        let path = self.config_path();
        std::fs::write(&path, as_toml(&all)).map_err(|error| format!("{}: {error}", path.display()))
    }

    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("seawall.toml")
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// While it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(std::process::Child::id)
    }

    /// True if the process runs and is not paused.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    pub(super) fn spawn(&mut self) -> Result<(), Failure> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(|error| format!("{}: {error}", self.log_path().display()))?;
        let mut command = Command::new(&self.binary);
        command.args(["serve", "-c"]).arg(self.config_path());
        // Settings of whoever runs the drill are not the drill's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEAWALL_")) {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().map_err(|error| format!("{}: {error}", self.binary.display()))?);
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        self.paused = false;
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    pub(super) fn terminate(&mut self, patience: Duration) -> Result<Duration, Failure> {
        let begun = Instant::now();
        self.signal(Signal::TERM)?;
        while begun.elapsed() < patience {
            if self.ended().is_some() {
                self.process = None;
                return Ok(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        Err(format!("node {} did not end within {} ms of SIGTERM", self.id, patience.as_millis()))
    }

    pub(super) fn pause(&mut self) -> Result<(), Failure> {
        self.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), Failure> {
        self.signal(Signal::CONT)?;
        self.paused = false;
        Ok(())
    }

    /// The process's number, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// How the process ended, if it has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
        status.map(|status| status.to_string())
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let process = self.process.as_ref().ok_or_else(|| format!("node {} does not run", self.id))?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("node {} has no process number", self.id))?;
        kill_process(pid, signal).map_err(|error| format!("node {}: {signal:?}: {error}", self.id))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sections in order of first mention; numbers and truths bare, all else quoted.
fn as_toml(settings: &[(&str, String)]) -> String {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for (key, value) in settings {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let is_bare = value.parse::<i64>().is_ok() || matches!(value.as_str(), "true" | "false");
        let value = if is_bare { value.clone() } else { serde_json::Value::from(value.as_str()).to_string() };
        let at = sections.iter().position(|(known, _)| *known == section).unwrap_or_else(|| {
            sections.push((section, String::new()));
            sections.len() - 1
        });
        let _ = writeln!(sections[at].1, "{name} = {value}");
    }
    sections.into_iter().map(|(section, lines)| format!("[{section}]\n{lines}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_file_has_its_sections_once() {
        let settings =
            [("node.id", "2".to_owned()), ("cluster.peers", "1@a:1".to_owned()), ("node.data_dir", "/x \"y\"".into())];
        assert_eq!(as_toml(&settings), "[node]\nid = 2\ndata_dir = \"/x \\\"y\\\"\"\n[cluster]\npeers = \"1@a:1\"\n");
    }
}
