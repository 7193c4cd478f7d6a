//! The facts about a failed call from which the text of its error is made.

use super::errcode::Endpoint;
use super::redaction::Redactor;
use crate::clock::Timestamp;
use crate::credential::AppId;

/// The facts about a failed call from which the text of its error is made, and the redactor that
/// removes the secrets of the call.
pub(crate) struct ErrorContext<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: &'a str,
    /// The account that the call concerns.
    pub(crate) app_id: &'a AppId,
    /// The third-party platform whose token or secret the call carries, or in whose name it is made.
    pub(crate) component: Option<&'a AppId>,
    pub(crate) redactor: &'a Redactor<'a>,
    pub(crate) now: Timestamp,
}
