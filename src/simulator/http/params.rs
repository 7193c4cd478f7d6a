//! What a call brings in its query or in a form.

use axum::{extract::Query, http::Uri};

/// Names and values, decoded, in the order they were sent.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Of a query that cannot be read, nothing.
    pub(super) fn from_query(uri: &Uri) -> Self {
        Self(
            Query::try_from_uri(uri)
                .map(|Query(pairs)| pairs)
                .unwrap_or_default(),
        )
    }

    pub(super) fn from_form(body: &[u8]) -> Self {
        // The form's coding is the query's, and the decoder takes it only from there.
        let query = format!("/?{}", String::from_utf8_lossy(body));
        query
            .parse()
            .map(|uri| Self::from_query(&uri))
            .unwrap_or_default()
    }

    /// The value of this name: as WeChat has it, an empty one counts as missing.
    pub(super) fn non_empty(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// The value of this name, be it empty.
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
