//! The keys as flags: those with a name of their own, and `--set section.key=value` for all.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::keys::{KEYS, Key};
use super::{Sources, VARIABLE_PREFIX, nearest};

/// What `serve`, `demo` and `config` take. Flatten it into a command.
#[derive(Clone, Default, Debug)]
pub struct ConfigFlags {
    pub file: Option<PathBuf>,
    pub dev: bool,
    flags: Vec<(&'static str, String, String)>,
}

impl ConfigFlags {
    /// Where to look, with the process's environment.
    pub fn sources(&self) -> Sources {
        let ours = |(name, _): &(String, String)| name.starts_with(VARIABLE_PREFIX);
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let mut variables: Vec<_> = std::env::vars_os().filter_map(text).filter(ours).collect();
        variables.sort();
        Sources { file: self.file.clone(), dev: self.dev, variables, flags: self.flags.clone() }
    }
}

impl clap::Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        let mut command = command
            .arg(
                Arg::new("config")
                    .short('c')
                    .long("config")
                    .value_name("FILE")
                    .env("SEAWALL_CONFIG")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("The configuration file [default: seawall.toml, then /etc/seawall/seawall.toml, if there]"),
            )
            .arg(
                Arg::new("dev")
                    .long("dev")
                    .action(ArgAction::SetTrue)
                    .help("For trying it out: no file needed, data in ./seawall-dev"),
            )
            .arg(
                Arg::new("set")
                    .long("set")
                    .value_name("SECTION.KEY=VALUE")
                    .action(ArgAction::Append)
                    .value_parser(parse_set)
                    .help("Any key of the configuration, such as log.retention=1d"),
            );
        for key in KEYS {
            if let Some(flag) = key.flag {
                command = command.arg(arg(key, flag));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(key: &'static Key, flag: &'static str) -> Arg {
    let help = key.help();
    let help = help.strip_suffix('.').unwrap_or(&help);
    let arg = Arg::new(key.name).long(flag).help(format!("{help} [{}, default: {}]", key.name, key.default));
    if key.is_switch { arg.action(ArgAction::SetTrue) } else { arg.value_name(key.value_name()) }
}

fn parse_set(text: &str) -> Result<(&'static str, String), String> {
    let (name, value) = text.split_once('=').ok_or("write section.key=value")?;
    let name = name.trim();
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Ok((key.name, value.trim().to_owned()));
    }
    let hint = nearest(name, KEYS.iter().map(|key| key.name));
    Err(format!("there is no key {name}{}", hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default()))
}

impl clap::FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Vec::new();
        for key in KEYS {
            let Some(flag) = key.flag else { continue };
            if key.is_switch {
                if matches.get_flag(key.name) {
                    flags.push((key.name, flag.to_owned(), "true".to_owned()));
                }
            } else if let Some(text) = matches.get_one::<String>(key.name) {
                flags.push((key.name, flag.to_owned(), text.clone()));
            }
        }
        for (name, text) in matches.get_many::<(&'static str, String)>("set").into_iter().flatten() {
            flags.push((name, format!("set {name}"), text.clone()));
        }
        Ok(Self { file: matches.get_one::<PathBuf>("config").cloned(), dev: matches.get_flag("dev"), flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
