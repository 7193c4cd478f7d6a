//! The parameters of a request, from a query or from a form.

use axum::{extract::Query, http::Uri};

/// The decoded names and values of the parameters, in the order in which the client sent them.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Parses the query of a URI. An invalid query counts as empty.
    pub(super) fn from_query(uri: &Uri) -> Self {
        Self(
            Query::try_from_uri(uri)
                .map(|Query(pairs)| pairs)
                .unwrap_or_default(),
        )
    }

    pub(super) fn from_form(body: &[u8]) -> Self {
        // A form has the encoding of a query, and axum's decoder accepts only queries.
        let query = format!("/?{}", String::from_utf8_lossy(body));
        query
            .parse()
            .map(|uri| Self::from_query(&uri))
            .unwrap_or_default()
    }

    /// Returns the value of the parameter `name`. An empty value counts as missing, as WeChat
    /// treats it.
    pub(super) fn non_empty(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// Returns the value of the parameter `name`, which may be empty.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}
