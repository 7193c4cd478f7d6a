//! The WeChat user of a request, and a fresh access_token, in every handler.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "simulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulator")))]
pub mod simulator;
