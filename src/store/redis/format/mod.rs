//! Text formats of stored values: the published Spring Boot layout, the records of this crate,
//! sealed values, and the values of other SDKs.

#[cfg(feature = "platform")]
pub(crate) mod durable;
pub(crate) mod external;
pub(crate) mod hash;
#[cfg(feature = "sealing")]
pub(crate) mod keys;
pub(crate) mod record;
pub(crate) mod sealed;
pub(crate) mod text;
