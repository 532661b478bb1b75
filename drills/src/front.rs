//! A `seawall forward` in front of the cluster: producers reach it, it reaches the cluster over links that can be cut.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::{Connection, LATEST};

use crate::Failure;
use crate::cluster::free_address;

/// Longest wait of one question to it.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
const START_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The process and its spool.
#[derive(Debug)]
pub struct Front {
    pub kafka: SocketAddr,
    pub folder: PathBuf,
    binary: PathBuf,
    to: Vec<String>,
    process: Option<Child>,
}

impl Front {
    /// Chooses a port; starts nothing.
    ///
    /// # Errors
    /// No port is free or the folder cannot be made.
    pub fn new(binary: &Path, folder: &Path, to: Vec<String>) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let kafka = free_address()?;
        Ok(Self { kafka, folder: folder.to_owned(), binary: binary.to_owned(), to, process: None })
    }

    /// Starts the process and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.kill();
        let log = self.folder.join("forward.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(&self.binary);
        command.args(["forward", "--to", &self.to.join(","), "--kafka", &self.kafka.to_string(), "--spool"]);
        command.arg(self.spool());
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        self.process = Some(command.spawn().map_err(|error| format!("{}: {error}", self.binary.display()))?);
        let begun = Instant::now();
        while Connection::connect(&self.kafka.to_string(), "drill", ASK_PATIENCE).is_err() {
            if begun.elapsed() > START_PATIENCE {
                return Err(format!("seawall forward does not answer; see {}", log.display()));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks for a topic, which makes it there like the cluster's.
    ///
    /// # Errors
    /// It is refused.
    pub fn ensure(&self, topic: &str) -> Result<(), Failure> {
        let asked = Connection::connect(&self.kafka.to_string(), "drill", ASK_PATIENCE)
            .and_then(|mut node| node.topic(topic, true));
        asked.map(drop).map_err(|error| error.to_string())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.folder.join("spool")
    }

    /// Lines of the file of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> usize {
        let text = std::fs::read_to_string(self.spool().join("dead-letters.ndjson")).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).count()
    }

    /// Records that it has taken into a partition.
    ///
    /// # Errors
    /// It does not answer.
    pub fn end(&self, topic: &str, partition: i32) -> Result<i64, Failure> {
        let asked = Connection::connect(&self.kafka.to_string(), "drill", ASK_PATIENCE)
            .and_then(|mut node| node.list_offset(topic, partition, LATEST));
        asked.map(|offset| offset.0).map_err(|error| error.to_string())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.kill();
    }
}
