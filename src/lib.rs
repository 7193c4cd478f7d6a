//! The WeChat user of a request, and a fresh access_token, in every handler.
#![cfg_attr(docsrs, feature(doc_cfg))]
