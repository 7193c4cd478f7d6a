//! The accounts of a layer that serves several: their registry, and the selection of one account
//! for each request.

mod account;
mod accounts;
mod builder;
mod ending;
mod finding;
mod listed;
mod made;
#[cfg(feature = "platform")]
mod platform;
mod searches;
mod selector;
mod source;
mod state;
mod unknown;
mod upkeep;

pub use self::account::Account;
pub use self::accounts::Accounts;
pub(super) use self::accounts::Selection;
pub use self::builder::AccountsBuilder;
#[cfg(feature = "platform")]
pub use self::platform::PlatformAccounts;
pub(super) use self::searches::FoundAccount;
pub use self::selector::AccountSelector;
pub use self::source::AccountRegistry;
