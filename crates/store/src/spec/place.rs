//! A JSON value with its path, so that every refusal can say where.

use serde_json::{Map, Value};

use super::SpecError;
use crate::calendar::clip;

/// Longest name that is compared with the known ones for a misspelling.
const TYPO_BYTES_MAX: usize = 64;

/// A value and the path to it. A missing value is null.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub value: &'a Value,
    pub path: String,
}

impl<'a> Place<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    pub fn get(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { value: self.value.get(key).unwrap_or(&Value::Null), path }
    }

    /// The member if it is there and not null.
    pub fn some(&self, key: &str) -> Option<Self> {
        Some(self.get(key)).filter(|place| !place.value.is_null())
    }

    pub fn items(&self) -> Result<Vec<Self>, SpecError> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, value)| Self { value, path: format!("{}[{index}]", self.path) })
                .collect()),
            _ => Err(self.expected("an array")),
        }
    }

    pub fn text(&self) -> Result<&'a str, SpecError> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    pub fn opt_text(&self, key: &str) -> Result<Option<&'a str>, SpecError> {
        self.some(key).map(|place| place.text()).transpose()
    }

    /// A boolean, also as text; `default` if missing.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, SpecError> {
        let place = self.get(key);
        match place.value {
            Value::Null => Ok(default),
            Value::Bool(value) => Ok(*value),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            _ => Err(place.expected("true or false")),
        }
    }

    pub fn whole(&self, key: &str) -> Result<Option<u64>, SpecError> {
        let Some(place) = self.some(key) else { return Ok(None) };
        let whole = place.value.as_u64().or_else(|| place.value.as_str()?.parse().ok());
        whole.map(Some).ok_or_else(|| place.expected("a whole number"))
    }

    pub fn object(&self) -> Result<&'a Map<String, Value>, SpecError> {
        self.value.as_object().ok_or_else(|| self.expected("an object"))
    }

    pub fn expected(&self, what: &str) -> SpecError {
        if self.value.is_null() {
            return self.refuse("is missing", format!("give {what}"));
        }
        self.refuse(format!("{} is not {what}", clip(&self.value.to_string())), format!("give {what}"))
    }

    pub fn refuse(&self, problem: impl Into<String>, fix: impl Into<String>) -> SpecError {
        let path = if self.path.is_empty() { "the spec" } else { &self.path };
        SpecError::new(path, problem, fix)
    }

    /// Refuses a member that is not known but nearly is one that is, and that one is missing. Other unknown
    /// members are ignored, as Druid does.
    pub fn check_spelling(&self, known: &[&str]) -> Result<(), SpecError> {
        let Some(members) = self.value.as_object() else { return Ok(()) };
        for name in members.keys().filter(|name| name.len() <= TYPO_BYTES_MAX && !known.contains(&name.as_str())) {
            let near = known.iter().find(|known| !members.contains_key(**known) && is_near(name, known));
            if let Some(near) = near {
                return Err(self.get(name).refuse("is an unknown field", format!("did you mean {near:?}?")));
            }
        }
        Ok(())
    }
}

/// True if a name is another but for case or a slip or two.
fn is_near(name: &str, known: &str) -> bool {
    let allowed = if known.len() >= 8 { 2 } else { 1 };
    name.eq_ignore_ascii_case(known) || (known.len() >= 4 && distance(name.as_bytes(), known.as_bytes()) <= allowed)
}

/// Levenshtein distance, row by row.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[right.len()]
}
