//! Query parameters of Redis URLs: `db` and `protocol`.

use crate::error::Error;

/// The query parameters of a URL that this crate reads itself.
#[derive(Debug, Default)]
pub(in crate::store::redis::connection) struct UrlParameters {
    pub(in crate::store::redis::connection) database: Option<String>,
    pub(in crate::store::redis::connection) uses_resp2: bool,
}

impl UrlParameters {
    /// Splits the query parameters off a URL. Rejects parameters that would have no effect and
    /// parameters that contradict each other. Skips the names in `more`, which the client library
    /// reads.
    pub(in crate::store::redis::connection) fn split_off(
        url: &str,
        more: &[&str],
    ) -> Result<(String, Self), Error> {
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let mut parameters = Self::default();
        let mut protocol = None;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("db", database) => {
                    let known = parameters.database.replace(database.to_owned());
                    if known.is_some_and(|known| known != database) {
                        return Err(Error::configuration(
                            "the Redis URL names two databases as db=; leave one out",
                        ));
                    }
                }
                ("protocol", name @ ("resp2" | "2" | "resp3" | "3")) => {
                    parameters.uses_resp2 = name.ends_with('2');
                    if protocol.replace(parameters.uses_resp2) == Some(!parameters.uses_resp2) {
                        return Err(Error::configuration(
                            "the Redis URL names two protocols; leave one out",
                        ));
                    }
                }
                ("protocol", _) => {
                    return Err(Error::configuration(
                        "the protocol of a Redis URL is resp2 or resp3 (?protocol=resp2)",
                    ));
                }
                (name, _) if more.contains(&name) => {}
                (name, _) => {
                    // The name may be a part of a secret that contains `&`, so only short names of
                    // plain letters are shown.
                    let known = name.len() <= 32
                        && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                    let name = if known {
                        format!(", {name}")
                    } else {
                        String::new()
                    };
                    return Err(Error::configuration(format!(
                        "the Redis URL has a parameter that would have no effect{name}; use only db and \
                         protocol (?db=2&protocol=resp2)"
                    )));
                }
            }
        }
        Ok((before.to_owned(), parameters))
    }

    /// Returns the database that the path or the parameter `db` names. Default: 0. Returns an error
    /// if the path and the parameter name different databases.
    pub(in crate::store::redis::connection) fn resolve_database(
        &self,
        path: Option<&str>,
    ) -> Result<String, Error> {
        match (self.database.as_deref(), path) {
            (Some(database), Some(other)) if database != other => Err(Error::configuration(
                "the Redis URL names two databases, one in its path and one as db=; leave one out",
            )),
            (Some(database), _) | (None, Some(database)) => Ok(database.to_owned()),
            (None, None) => Ok("0".to_owned()),
        }
    }
}
