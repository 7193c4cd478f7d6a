//! Values that layers for several accounts insert into the extensions of one request.
//!
//! Extensions hold one value of each type. A layer that inserts its own value therefore moves the value
//! of the layer further out into it.

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

/// The value that the layer for another account, further out on the same route, inserted.
#[derive(Clone)]
pub(super) struct Outer<T>(Option<Arc<T>>);

impl<T: OfAccount> Outer<T> {
    /// No layer further out has inserted a value.
    pub(super) const NONE: Self = Self(None);

    /// Wraps a value of a layer further out.
    pub(super) fn new(value: T) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// Returns the outer value of a new value for `account` that replaces `replaced`.
    ///
    /// Usually this is `replaced`. If `replaced` belongs to the same account, it is dropped, and
    /// this is the outer value of `replaced`.
    pub(super) fn of_replaced(replaced: T, account: &AppId) -> Self {
        match replaced.account() == account {
            true => Self(replaced.outer().0.clone()),
            false => Self::new(replaced),
        }
    }

    /// Returns the value for this account, from the innermost layer outwards.
    pub(super) fn find(&self, account: &AppId) -> Option<&T> {
        find(self.0.as_deref()?, account)
    }
}

/// Returns the first value for this account, from `innermost` outwards.
pub(super) fn find<'a, T: OfAccount>(innermost: &'a T, account: &AppId) -> Option<&'a T> {
    successors(Some(innermost), |value| value.outer().0.as_deref())
        .find(|value| value.account() == account)
}
