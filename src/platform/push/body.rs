//! Bodies of pushes and of the application's answers, read within bounds.

use std::error::Error as StdError;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Maximum size of a body: 64 KiB. Tickets have less than 2 KiB. WeChat documents no maximum for
/// users' messages, whose texts have at most 2,048 bytes.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// The reason why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The body is longer than [`MAX_BODY_BYTES`].
    TooLarge,
    /// The body ended with an error.
    Broken,
}

/// Reads a body of at most [`MAX_BODY_BYTES`]. Stops at the first byte beyond, and before the first
/// byte if the headers already name a greater length.
pub(super) async fn read_body<B>(body: B) -> Result<Bytes, BodyError>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(BodyError::TooLarge);
    }
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Err(_) => Err(BodyError::Broken),
    }
}
