//! The accounts of a layer: one, or several of which one is selected for each request.

use std::sync::Arc;

use super::account_layer::{AccountLayer, AccountParts};
use super::registry::Accounts;
use super::settings::LayerSettings;

/// The settings of a layer, with its one account or with several accounts.
pub(super) enum LayerAccounts<I, R> {
    One(AccountLayer<I, R>),
    Several {
        settings: Arc<LayerSettings<I, R>>,
        accounts: Accounts,
    },
}

impl<I, R> LayerAccounts<I, R> {
    pub(super) fn settings(&self) -> &LayerSettings<I, R> {
        match self {
            Self::One(layer) => &layer.settings,
            Self::Several { settings, .. } => settings,
        }
    }

    /// Returns the parts of the account. `None` with several accounts.
    pub(super) fn parts(&self) -> Option<&AccountParts> {
        match self {
            Self::One(layer) => Some(&layer.parts),
            Self::Several { .. } => None,
        }
    }

    /// Changes the settings, or a copy of them if another clone of the layer shares them.
    pub(super) fn map_settings<J, Q>(
        self,
        change: impl FnOnce(LayerSettings<I, R>) -> LayerSettings<J, Q>,
    ) -> LayerAccounts<J, Q> {
        let change = |settings: Arc<LayerSettings<I, R>>| {
            let settings = Arc::try_unwrap(settings).unwrap_or_else(|shared| shared.duplicate());
            Arc::new(change(settings))
        };
        match self {
            Self::One(AccountLayer { settings, parts }) => LayerAccounts::One(AccountLayer {
                settings: change(settings),
                parts,
            }),
            Self::Several { settings, accounts } => LayerAccounts::Several {
                settings: change(settings),
                accounts,
            },
        }
    }

    /// Changes the parts of the one account, or a copy of them if another clone of the layer shares
    /// them. With several accounts, logs an error and changes nothing. `setter` is the application's
    /// call, and `instead` names the calls that set the same for one of several accounts.
    pub(super) fn map_parts(
        self,
        setter: &'static str,
        instead: &'static str,
        change: impl FnOnce(AccountParts) -> AccountParts,
    ) -> Self {
        match self {
            Self::One(AccountLayer { settings, parts }) => Self::One(AccountLayer {
                settings,
                parts: Arc::new(change(Arc::unwrap_or_clone(parts))),
            }),
            Self::Several { .. } => {
                tracing::error!(
                    target: "tower_wechat::layer",
                    setter,
                    instead,
                    "a layer of several accounts ignores this setting: call what `instead` names for \
                     each account"
                );
                self
            }
        }
    }
}

impl<I, R> Clone for LayerAccounts<I, R> {
    fn clone(&self) -> Self {
        match self {
            Self::One(layer) => Self::One(layer.clone()),
            Self::Several { settings, accounts } => Self::Several {
                settings: Arc::clone(settings),
                accounts: accounts.clone(),
            },
        }
    }
}
