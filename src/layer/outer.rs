//! Values that layers for several accounts insert into the extensions of one request.
//!
//! Extensions hold one value of each type, so the value of an inner layer replaces that of a layer
//! further out. The inner layer's value keeps the replaced value as its *outer* value.

use std::iter::successors;
use std::sync::Arc;

use crate::credential::AppId;

/// A type of which every layer inserts a value for its account.
pub(super) trait OfAccount: Sized {
    /// Returns the account whose layer inserted this value.
    fn account(&self) -> &AppId;

    /// Returns the values of the layers further out.
    fn outer(&self) -> &Outer<Self>;
}

/// The outer value of a layer's value: what a layer further out on the same route has inserted, for
/// another account. `None` if there is no such layer.
#[derive(Clone)]
pub(super) struct Outer<T>(Option<Arc<T>>);

impl<T: OfAccount> Outer<T> {
    /// The outer value if no layer further out has inserted one.
    pub(super) const NONE: Self = Self(None);

    /// Wraps the value of a layer further out.
    pub(super) fn new(value: T) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// Returns the outer value that a new value for `account` gets when it replaces `replaced`.
    ///
    /// If `replaced` belongs to another account, the outer value is `replaced` itself. If it
    /// belongs to the same account, `replaced` is dropped, and its own outer value is returned.
    pub(super) fn of_replaced(replaced: T, account: &AppId) -> Self {
        match replaced.account() == account {
            true => Self(replaced.outer().0.clone()),
            false => Self::new(replaced),
        }
    }

    /// Returns the outer value for this account. If there are several, returns that of the
    /// innermost layer.
    pub(super) fn find(&self, account: &AppId) -> Option<&T> {
        find(self.0.as_deref()?, account)
    }
}

/// Returns the first value for this account, from `innermost` outwards.
pub(super) fn find<'a, T: OfAccount>(innermost: &'a T, account: &AppId) -> Option<&'a T> {
    successors(Some(innermost), |value| value.outer().0.as_deref())
        .find(|value| value.account() == account)
}
