//! Limits of logins: for each code, for each browser, and for the exchanges of a process.

pub(super) mod codes;
pub(super) mod exchanges;
pub(super) mod logins;
