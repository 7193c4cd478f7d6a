//! Reads environment variables. An error is one sentence that names the variable and the remedy.
//!
//! Spaces and line breaks around a value are ignored, because copied secrets often have them. A
//! variable without any other character counts as not set.

use std::env::{self, VarError};
use std::time::Duration;

use url::Url;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Maximum number of seconds in a variable: 30 days. A larger number is probably in milliseconds by
/// mistake.
const MAX_SECONDS: u64 = 30 * 24 * 3_600;

/// Returns the value of a variable. Returns `None` if the variable is not set or blank.
pub fn read_variable(name: &str) -> Result<Option<String>, BoxError> {
    let value = read_trimmed(name)?;
    match &value {
        Some(text) if text.contains(char::is_control) => Err(format!(
            "{name} holds a line break or another control character: take it out"
        )
        .into()),
        _ => Ok(value),
    }
}

/// Returns the value of a variable with keys in base64. The value may have several lines, because
/// `openssl` wraps long output.
pub fn read_key(name: &str) -> Result<Option<String>, BoxError> {
    read_trimmed(name)
}

fn read_trimmed(name: &str) -> Result<Option<String>, BoxError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8: write it anew").into()),
    }
}

/// Returns the value that belongs to the word in a variable. `otherwise` ends the error about a word
/// that is not one of `choices`.
pub fn read_choice<T>(
    name: &str,
    choices: &[(&str, T)],
    otherwise: &str,
) -> Result<Option<T>, BoxError>
where
    T: Copy,
{
    let Some(value) = read_variable(name)? else {
        return Ok(None);
    };
    let found = choices.iter().find(|(word, _)| *word == value);
    match found {
        Some((_, choice)) => Ok(Some(*choice)),
        None => Err(format!("{name}={value} is {otherwise}").into()),
    }
}

/// Returns the content of the file whose path is in a variable.
pub fn read_named_file(name: &str) -> Result<Option<Vec<u8>>, BoxError> {
    match read_variable(name)? {
        Some(path) => match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("{name}={path}: {error}").into()),
        },
        None => Ok(None),
    }
}

/// Returns the whole number of seconds in a variable as a duration, or `default` seconds if the
/// variable is not set.
pub fn read_seconds(name: &str, default: u64) -> Result<Duration, BoxError> {
    let Some(value) = read_variable(name)? else {
        return Ok(Duration::from_secs(default));
    };
    match value.parse() {
        Ok(seconds) if seconds <= MAX_SECONDS => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err(format!("{name}={value} is more than 30 days; it is in seconds").into()),
        Err(_) => Err(format!(
            "{name}={value} is not a whole number of seconds, such as {default}"
        )
        .into()),
    }
}

/// Returns the URL in a variable with its origin as browsers write it: `HTTPS://例子.com` becomes
/// `https://xn--fsqu00a.com`. `Login` reports all other mistakes in the URL.
pub fn as_browsers_write_it(name: &str, text: &str) -> Result<String, BoxError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(text.to_owned());
    };
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let is_http = ["http", "https"].contains(&&*scheme.to_ascii_lowercase());
    // The URL parser would drop a colon without a port. `Login` rejects it.
    if !is_http || authority.is_empty() || authority.contains('@') || authority.ends_with(':') {
        return Ok(text.to_owned());
    }
    match Url::parse(&format!("{scheme}://{authority}")) {
        Ok(url) => Ok(format!("{}{path}", url.origin().ascii_serialization())),
        Err(_) if authority.is_ascii() => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{name}: {authority:?} is no host: {error}; write it like https://h5.example.com or \
             https://例子.com"
        )
        .into()),
    }
}
