//! `seawall.toml` to (key, text, line). Every complaint names the file and the line.

use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key};
use super::nearest::nearest;
use super::{ConfigError, section_names};

/// A key that stands in the file.
pub struct Setting {
    pub key: &'static Key,
    pub text: String,
    /// From 1.
    pub line: usize,
}

/// All settings of the file `name` whose content is `content`, in the file's order.
///
/// # Errors
/// `Syntax` for what is not TOML, `UnknownKey`, `WrongType`.
pub fn parse(name: &str, content: &str) -> Result<Vec<Setting>, ConfigError> {
    let line_of = |at: usize| content.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let document = DeTable::parse(content).map_err(|error| ConfigError::Syntax {
        file: name.to_owned(),
        line: line_of(error.span().map_or(0, |span| span.start)),
        cause: error.message().to_owned(),
    })?;
    let mut settings = Vec::new();
    for (section, table) in document.get_ref() {
        let line = line_of(section.span().start);
        let at = || format!("{name}:{line}");
        let section = section.get_ref().as_ref();
        if !section_names().any(|name| name == section) {
            let nearest = nearest(section, section_names()).map(str::to_owned);
            return Err(ConfigError::UnknownKey { at: at(), name: section.to_owned(), nearest });
        }
        let DeValue::Table(table) = table.get_ref() else {
            let wrong = ConfigError::WrongType {
                at: at(),
                key: section.to_owned(),
                cause: format!("is a section; write [{section}] on a line of its own and its keys below"),
            };
            return Err(wrong);
        };
        for (short, value) in table {
            let line = line_of(short.span().start);
            let full = format!("{section}.{}", short.get_ref());
            settings.push(setting(&format!("{name}:{line}"), full, value.get_ref(), line)?);
        }
    }
    settings.sort_by_key(|setting| setting.line);
    Ok(settings)
}

fn setting(at: &str, full: String, value: &DeValue<'_>, line: usize) -> Result<Setting, ConfigError> {
    let Some(key) = KEYS.iter().find(|key| key.name == full) else {
        let nearest = nearest(&full, KEYS.iter().map(|key| key.name)).map(str::to_owned);
        return Err(ConfigError::UnknownKey { at: at.to_owned(), name: full, nearest });
    };
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        // A list may be written as one, element by element.
        DeValue::Array(list) if list.iter().all(|item| matches!(item.get_ref(), DeValue::String(_))) => {
            let parts = list.iter().filter_map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            parts.collect::<Vec<_>>().join(",")
        }
        other => {
            let cause = format!("needs {}, not a TOML {}", key.shape, other.type_str());
            return Err(ConfigError::WrongType { at: at.to_owned(), key: full, cause });
        }
    };
    Ok(Setting { key, text, line })
}
