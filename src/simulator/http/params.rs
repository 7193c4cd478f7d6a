//! The parameters of a query or of a form.

use axum::{extract::Query, http::Uri};

/// Decoded names and values, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Parses the query of a URI. An invalid query has no parameters.
    pub(super) fn from_query(uri: &Uri) -> Self {
        Self(
            Query::try_from_uri(uri)
                .map(|Query(pairs)| pairs)
                .unwrap_or_default(),
        )
    }

    pub(super) fn from_form(body: &[u8]) -> Self {
        // A form is encoded as a query is, and axum's decoder takes queries only.
        let query = format!("/?{}", String::from_utf8_lossy(body));
        query
            .parse()
            .map(|uri| Self::from_query(&uri))
            .unwrap_or_default()
    }

    /// Returns the value of this name. An empty value counts as missing, as it does for WeChat.
    pub(super) fn non_empty(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// Returns the value of this name, which may be empty.
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
