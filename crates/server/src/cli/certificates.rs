//! `cluster init`, `token`, `join`: the certificates that nodes prove themselves with.

use std::path::PathBuf;

use base::NodeId;

use super::failure::{Code, Failure};
use super::output::{say, stdout};
use crate::config::Value;
use crate::node::time;
use crate::shell::security::{self, CertificateAuthority, SecurityError, TOKEN_VALID, Token};

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The first node's data folder; certificates go into its folder `security`
    #[arg(long, value_name = "DIR", default_value = "seawall-data")]
    data_dir: PathBuf,
    /// The first node's number
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    node_id: u32,
    /// Another node on this machine and its data folder, which gets its certificate at once; may be repeated
    #[arg(long = "member", value_name = "NUMBER=DIR")]
    members: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// Data folder of the node where `cluster init` was run
    #[arg(long, value_name = "DIR", default_value = "seawall-data")]
    data_dir: PathBuf,
    /// Only for this node, which may have joined before
    #[arg(long, value_name = "NUMBER")]
    node_id: Option<u32>,
    /// How long it can be used; 24 hours unless told otherwise
    #[arg(long, value_name = "DURATION")]
    valid: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// host:port of listen.peer of the node where `cluster init` was run; it must be running
    #[arg(long, value_name = "HOST:PORT")]
    from: String,
    /// What `cluster init` or `cluster token` printed; @FILE reads it from a file
    #[arg(long)]
    token: String,
    /// This node's number; no other node may have it
    #[arg(long, value_name = "NUMBER")]
    node_id: u32,
    /// This node's data folder
    #[arg(long, value_name = "DIR", default_value = "seawall-data")]
    data_dir: PathBuf,
}

pub fn init(args: &InitArgs) -> Result<(), Failure> {
    let dir = security::folder(&args.data_dir);
    let members: Vec<_> = args.members.iter().map(|text| member(text)).collect::<Result<_, _>>()?;
    let authority = CertificateAuthority::found(&dir, node(args.node_id)?, time::wall)?;
    for (id, data_dir) in &members {
        authority.issue(&security::folder(data_dir), *id)?;
    }
    let token = authority.token(TOKEN_VALID, None)?;
    say(&format!("cluster {} has its authority in {}: keep a copy of ca.key", authority.cluster(), dir.display()));
    say("start this node, then, within 24 hours, on each other one before its first start:");
    say("  seawall cluster join --from HOST:PORT --token TOKEN --node-id NUMBER --data-dir DIR");
    print(&token)
}

pub fn token(args: &TokenArgs) -> Result<(), Failure> {
    let dir = security::folder(&args.data_dir);
    let valid = args.valid.as_deref().map_or(Ok(TOKEN_VALID), Value::parse).map_err(Failure::usage)?;
    let authority = CertificateAuthority::open(&dir, time::wall)?.ok_or(SecurityError::NoAuthority(dir))?;
    print(&authority.token(valid, args.node_id.map(node).transpose()?)?)
}

pub fn join(args: &JoinArgs) -> Result<(), Failure> {
    let text = match args.token.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)?,
        None => args.token.clone(),
    };
    let token: Token = text.parse()?;
    let dir = security::folder(&args.data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = runtime.block_on(security::join(&dir, &args.from, &token, node(args.node_id)?))?;
    say(&format!("node {} may join cluster {cluster}: its certificate is in {}", args.node_id, dir.display()));
    Ok(())
}

/// `NUMBER=DIR`.
fn member(text: &str) -> Result<(NodeId, PathBuf), Failure> {
    let (number, dir) = text.split_once('=').unwrap_or_default();
    match number.parse() {
        Ok(number) if !dir.is_empty() => Ok((node(number)?, dir.into())),
        _ => {
            Err(Failure::usage(format!("{text:?} is not a node's number and its data folder, such as 2=/data/node-2")))
        }
    }
}

fn print(token: &Token) -> Result<(), Failure> {
    stdout(format!("{token}\n").as_bytes())
}

fn node(number: u32) -> Result<NodeId, Failure> {
    if number == 0 {
        return Err(Failure::usage("a node's number is 1 or more"));
    }
    Ok(NodeId(number))
}

impl From<SecurityError> for Failure {
    fn from(error: SecurityError) -> Self {
        let code = match &error {
            SecurityError::Exists(_) => Code::Conflict,
            SecurityError::NoAuthority(_) => Code::NotFound,
            SecurityError::Token => Code::Usage,
            SecurityError::Unreachable { .. } => Code::CannotConnect,
            SecurityError::Refused(_) => Code::Denied,
            SecurityError::Io(..) | SecurityError::Damaged { .. } | SecurityError::Make(_) => Code::Failure,
        };
        Self::new(code, error.to_string())
    }
}
