//! The list of accounts that this process reads at the moment, which its callers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::credential::AppId;
use crate::error::Error;

/// What a list has said.
#[derive(Debug)]
pub(super) struct AccountsListed {
    /// The listed accounts, with `true` for those whose refresh token the list contains.
    pub(super) accounts: HashMap<AppId, bool>,
}

/// The outcome of a list: `None` if another process has read one within the last minute.
pub(super) type ListOutcome = Result<Option<Arc<AccountsListed>>, Error>;

/// The list that this process reads at the moment.
#[derive(Default)]
pub(super) struct RunningList(pub(super) Mutex<Option<watch::Receiver<Option<ListOutcome>>>>);
