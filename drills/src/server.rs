//! One seawall process in a folder of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::Connection;

use crate::{Common, Failure, http, usage};

/// Longest wait for one answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    binary: PathBuf,
    pub folder: PathBuf,
    pub kafka: SocketAddr,
    pub http: SocketAddr,
    postgres: SocketAddr,
    settings: Vec<(String, String)>,
    process: Option<Child>,
    keep: bool,
}

impl Server {
    /// Chooses ports and a folder; starts nothing.
    pub fn new(common: &Common, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let binary = common.binary()?;
        let folder = common.folder.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!(
                "seawall-drill-{}-{}",
                std::process::id(),
                free_port().map_or(0, |a| a.port())
            ))
        });
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self {
            binary,
            folder,
            kafka: free_port()?,
            http: free_port()?,
            postgres: free_port()?,
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            process: None,
            keep: common.keep || common.folder.is_some(),
        })
    }

    /// Starts the process; returns at once.
    pub fn spawn(&mut self) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(self.folder.join("server.log"));
        let log = log.map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--dev", "--data-dir"])
            .arg(self.folder.join("data"))
            .env("SEAWALL_LISTEN_KAFKA", self.kafka.to_string())
            .env("SEAWALL_LISTEN_HTTP", self.http.to_string())
            .env("SEAWALL_LISTEN_POSTGRES", self.postgres.to_string())
            .envs(self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            .stdout(Stdio::null())
            .stderr(log);
        self.process = Some(command.spawn().map_err(|error| format!("{}: {error}", self.binary.display()))?);
        Ok(())
    }

    /// Starts the process and waits until it answers SQL; returns how long that took.
    pub fn start(&mut self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        self.spawn()?;
        self.await_sql("SELECT 1", begun)?;
        Ok(begun.elapsed())
    }

    /// Asks until there is an answer; the process must stay alive meanwhile.
    pub fn await_sql(&mut self, query: &str, begun: Instant) -> Result<u64, Failure> {
        loop {
            let failure = match http::count(self.http, query, PATIENCE) {
                Ok(count) => return Ok(count),
                Err(failure) => failure,
            };
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten()) {
                return Err(format!(
                    "the server ended with {status}; see {}",
                    self.folder.join("server.log").display()
                ));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("no answer within {} s: {failure}", PATIENCE.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    pub fn connect(&self) -> Result<Connection, Failure> {
        Connection::connect(&self.kafka.to_string(), "drill", PATIENCE).map_err(|error| error.to_string())
    }

    /// A table that discovers its columns, over the topic of the same name.
    pub fn create_table(&self, name: &str) -> Result<(), Failure> {
        let body = serde_json::json!({"name": name, "topic": name}).to_string();
        let (status, answer) = http::request(self.http, "POST", "/api/v1/tables", &body, PATIENCE)?;
        if (200..300).contains(&status) { Ok(()) } else { Err(format!("creating table {name}: {status} {answer}")) }
    }

    /// Resident memory in bytes, while it runs.
    pub fn memory_bytes(&self) -> u64 {
        self.process.as_ref().map_or(0, |process| usage::memory_bytes(process.id()))
    }

    /// CPU seconds used so far, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.as_ref().map_or(0.0, |process| usage::cpu_seconds(process.id()))
    }

    /// Bytes in a part of the data folder.
    pub fn disk_bytes(&self, part: &str) -> u64 {
        folder_bytes(&self.folder.join("data").join(part))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if self.keep || std::thread::panicking() {
            eprintln!("the server's folder is {}", self.folder.display());
        } else {
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }
}

fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn free_port() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}
