//! A disk that fills up, and one that fails to sync, under a real process.
//!
//! Promises: a full disk refuses writes with a Kafka error before it is full, goes on answering queries, and takes
//! writes again by itself; a failed fsync stops writes for good with a finding, until the process is started again.
//! Nothing acknowledged is lost in either.
//!
//! The full disk is a small tmpfs, so this part needs to be allowed to mount. The failing fsync is a preloaded
//! library, made here with the system's C compiler, that answers EIO while a file exists.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base::batch::Codec;
use base::records::BatchBuilder;
use base::{ProducerEpoch, ProducerId, Timestamp};
use bytes::Bytes;
use client::{Acks, ClientError, Connection};
use serde_json::{Value, json};

use crate::server::{PATIENCE, Server};
use crate::{Common, Failure, http, table};

const TOPIC: &str = "disk";
/// The tmpfs, what the node keeps free of it, and what is put there to be removed again.
const DISK_MIB: u64 = 256;
const RESERVE_MIB: u64 = 64;
const BALLAST_MIB: u64 = 96;
const RECORDS_PER_BATCH: u64 = 500;
/// More than the disk can hold; reaching it means that nothing was refused.
const BATCHES_MAX: u64 = 4_000;
/// KAFKA_STORAGE_ERROR.
const STORAGE_ERROR: i16 = 56;
const RESUMES_WITHIN: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    /// full, fsync or all
    #[arg(default_value = "all")]
    which: String,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

pub fn run(common: &Common, options: &Options) -> Result<(), Failure> {
    let mut rows = Vec::new();
    if options.which != "fsync" {
        rows.push(full(common)?);
    }
    if options.which != "full" {
        rows.push(fsync(common)?);
    }
    let columns =
        ["drill", "acknowledged", "counted", "refused_with", "finding", "queries_meanwhile", "resumed_after_ms"];
    table::print(&options.format, &columns, &rows);
    Ok(())
}

/// Produces until refused, asks meanwhile, makes room, and expects writes to go on without a restart.
fn full(common: &Common) -> Result<Vec<Value>, Failure> {
    let mount = Mount::new()?;
    let common = Common { folder: Some(mount.0.clone()), ..common.clone() };
    let ballast = mount.0.join("ballast");
    let zeros = vec![0_u8; usize::try_from(BALLAST_MIB << 20).unwrap_or(0)];
    std::fs::write(&ballast, zeros).map_err(|error| error.to_string())?;
    let reserve = format!("{RESERVE_MIB}MiB");
    let mut server = Server::new(&common, &[("SEAWALL_LOG_DISK_RESERVE_BYTES", &reserve)])?;
    server.start()?;
    server.create_table(TOPIC)?;
    let mut load = Load::begin(&server)?;
    let code = load.until_refused()?;
    let free = free_mib(&mount.0)?;
    if free == 0 {
        return Err("the disk was filled to the last byte before writes were refused".into());
    }
    let finding = await_finding(&server, "disk-full")?;
    let meanwhile = await_count(&mut server, load.acknowledged)?;
    std::fs::remove_file(&ballast).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    while let Err(error) = load.produce(Acks::All) {
        if begun.elapsed() > RESUMES_WITHIN {
            return Err(format!("there is room again, and writes are still refused: {error}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let resumed_ms = begun.elapsed().as_millis();
    let counted = await_count(&mut server, load.acknowledged)?;
    server.kill();
    Ok(vec![
        json!("full disk"),
        json!(load.acknowledged),
        json!(counted),
        json!(code),
        json!(finding),
        json!(meanwhile),
        json!(u64::try_from(resumed_ms).unwrap_or(u64::MAX)),
    ])
}

/// Lets fsync fail, expects writes to stop and to stay stopped when it works again, and all to be there after a restart.
fn fsync(common: &Common) -> Result<Vec<Value>, Failure> {
    let flag = std::env::temp_dir().join(format!("seawall-drill-fsync-{}", std::process::id()));
    let shim = shim(&flag)?;
    let preload = shim.to_string_lossy().into_owned();
    let mut server = Server::new(common, &[("LD_PRELOAD", &preload)])?;
    server.start()?;
    server.create_table(TOPIC)?;
    let mut load = Load::begin(&server)?;
    for _ in 0..20 {
        load.produce(Acks::All).map_err(|error| error.to_string())?;
    }
    std::fs::write(&flag, b"").map_err(|error| error.to_string())?;
    let code = load.until_refused()?;
    let finding = await_finding(&server, "log-stopped")?;
    let meanwhile = await_count(&mut server, load.acknowledged)?;
    std::fs::remove_file(&flag).map_err(|error| error.to_string())?;
    // The kernel may have dropped what it could not write: a later success proves nothing.
    for acks in [Acks::All, Acks::Leader] {
        if load.produce(acks).is_ok() {
            return Err("writes were taken again by a process whose fsync had failed".into());
        }
    }
    server.kill();
    server.start()?;
    load.connection = server.connect()?;
    load.produce(Acks::All).map_err(|error| format!("writes are refused after the restart: {error}"))?;
    // What was in flight when fsync failed may have survived or not; its client was told that it failed.
    let counted = http::count(server.http, &format!("SELECT COUNT(*) FROM {TOPIC}"), PATIENCE)?;
    if counted < load.acknowledged || counted > load.acknowledged + load.in_doubt {
        return Err(format!(
            "{} records were acknowledged and {} failed, {counted} are there after the restart",
            load.acknowledged, load.in_doubt
        ));
    }
    server.kill();
    drop(std::fs::remove_file(&shim));
    Ok(vec![
        json!("fsync error"),
        json!(load.acknowledged),
        json!(counted),
        json!(code),
        json!(finding),
        json!(meanwhile),
        json!("after a restart only, as promised"),
    ])
}

/// One producer that counts what it was promised.
struct Load {
    connection: Connection,
    batch: Bytes,
    acknowledged: u64,
    /// Records of batches that were answered with an error: they may be there or not.
    in_doubt: u64,
}

impl Load {
    fn begin(server: &Server) -> Result<Self, Failure> {
        let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId::NONE, ProducerEpoch(-1), -1);
        let text = "x".repeat(200);
        for number in 0..RECORDS_PER_BATCH {
            let json = format!(r#"{{"__time":"2026-01-01T00:00:00Z","number":{number},"text":"{text}"}}"#);
            builder.push(Timestamp(1_767_225_600_000), None, Some(json.as_bytes()), &[]);
        }
        let batch = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { connection: server.connect()?, batch, acknowledged: 0, in_doubt: 0 })
    }

    fn produce(&mut self, acks: Acks) -> Result<(), ClientError> {
        let outcome = self.connection.produce(TOPIC, 0, self.batch.clone(), acks).map(drop);
        let counter = if outcome.is_ok() { &mut self.acknowledged } else { &mut self.in_doubt };
        *counter += RECORDS_PER_BATCH;
        outcome
    }

    /// The code of the first refusal.
    fn until_refused(&mut self) -> Result<i16, Failure> {
        for _ in 0..BATCHES_MAX {
            match self.produce(Acks::All) {
                Ok(()) => {}
                Err(ClientError::Refused { code: STORAGE_ERROR, .. }) => return Ok(STORAGE_ERROR),
                Err(error) => return Err(format!("expected a storage error (code {STORAGE_ERROR}): {error}")),
            }
        }
        Err(format!("{BATCHES_MAX} batches were taken and none was refused"))
    }
}

/// SQL answers, and in the end counts what was acknowledged.
fn await_count(server: &mut Server, acknowledged: u64) -> Result<u64, Failure> {
    let begun = Instant::now();
    loop {
        let counted = server.await_sql(&format!("SELECT COUNT(*) FROM {TOPIC}"), begun)?;
        if counted >= acknowledged {
            return Ok(counted);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{acknowledged} records were acknowledged, SQL counts {counted}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn await_finding(server: &Server, code: &str) -> Result<String, Failure> {
    let begun = Instant::now();
    loop {
        let (_, body) = http::request(server.http, "GET", "/api/v1/status", "", PATIENCE)?;
        let status: Value = serde_json::from_str(&body).map_err(|error| format!("/api/v1/status: {error}"))?;
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        if findings.iter().any(|finding| finding["code"] == code) {
            return Ok(code.to_owned());
        }
        if begun.elapsed() > RESUMES_WITHIN {
            return Err(format!("no finding {code}: the status says {body}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A small tmpfs, gone when this is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("seawall-drill-disk-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "seawall-drill"]).arg(&path).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Ok(Self(path));
        }
        drop(std::fs::remove_dir(&path));
        Err("a small tmpfs could not be mounted: run this drill as root, or only `drills disk fsync`".into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
        drop(std::fs::remove_dir(&self.0));
    }
}

fn free_mib(path: &Path) -> Result<u64, Failure> {
    let output = Command::new("df").args(["--output=avail", "-B1M"]).arg(path).output();
    let output = output.map_err(|error| format!("df: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().last().and_then(|last| last.parse().ok()).ok_or_else(|| format!("df said {text:?}"))
}

/// Compiles the library that lets fsync and fdatasync fail while `flag` exists.
fn shim(flag: &Path) -> Result<PathBuf, Failure> {
    let source = format!(
        r#"#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>
static int broken(void) {{ return access("{}", F_OK) == 0; }}
int fsync(int fd) {{
    if (broken()) {{ errno = EIO; return -1; }}
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}}
int fdatasync(int fd) {{
    if (broken()) {{ errno = EIO; return -1; }}
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}}
"#,
        flag.display()
    );
    let file = flag.with_extension("c");
    let library = flag.with_extension("so");
    std::fs::write(&file, source).map_err(|error| error.to_string())?;
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&file).arg("-ldl").status();
    drop(std::fs::remove_file(&file));
    match compiled {
        Ok(status) if status.success() => Ok(library),
        Ok(status) => Err(format!("cc ended with {status}")),
        Err(error) => Err(format!("cc: {error}")),
    }
}
