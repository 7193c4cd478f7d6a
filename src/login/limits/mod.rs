//! Limits of logins: codes of one login, logins of one user, and exchanges of one login handler.

pub(super) mod codes;
pub(super) mod exchanges;
pub(super) mod logins;
