//! Why a command ended without doing its work, and the code the shell sees.

use std::process::ExitCode;

use client::ClientError;

/// The codes scripts may rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The reader of the output has gone away: it has what it wanted.
    Enough = 0,
    Failure = 1,
    Usage = 2,
    CannotConnect = 3,
    Denied = 4,
    NotFound = 5,
    Conflict = 6,
    Timeout = 7,
    Unhealthy = 10,
}

/// What to say, and the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub code: Code,
    /// Empty: it has been said already.
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code as u8)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Connect { .. } => Code::CannotConnect,
            ClientError::Io { cause, .. } => match cause.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Code::Timeout,
                _ => Code::Failure,
            },
            ClientError::Malformed { .. } => Code::Failure,
            ClientError::Refused { code, .. } => of_kafka(*code),
        };
        Self::new(code, in_words(&error))
    }
}

/// The server's words where it has some, ours for what a person meets often, else the code's name.
fn in_words(error: &ClientError) -> String {
    match error {
        ClientError::Refused { message: Some(message), .. } => message.clone(),
        ClientError::Refused { what, code: 3 | 69 | 100, .. } => format!("{what} does not exist"),
        ClientError::Refused { what, code: 68, .. } => format!("{what} has members; stop them first"),
        other => other.to_string(),
    }
}

/// Kafka's error numbers.
fn of_kafka(number: i16) -> Code {
    match number {
        // unknown topic or partition, group id not found, unknown topic id
        3 | 69 | 100 => Code::NotFound,
        // request timed out
        7 => Code::Timeout,
        // not authorized: topic, group, cluster, transactional id
        29..=31 | 53 => Code::Denied,
        // topic exists, group not empty, policy violation (in use)
        36 | 44 | 68 => Code::Conflict,
        _ => Code::Failure,
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failure, error.to_string())
    }
}
