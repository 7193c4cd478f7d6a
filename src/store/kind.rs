//! The kinds of credential.

/// A kind of credential. One engine manages the credentials of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// The access token and refresh token of a user.
    User,
    /// The access token of a virtual user of a snapshot page (快照页). The record expires with the
    /// token.
    SnapshotUser,
    /// The interface access token of an account.
    AccountToken,
    /// The `jsapi_ticket` of an account.
    JsapiTicket,
    /// The component access token of a third-party platform. The account is the platform itself.
    ComponentToken,
}

impl CredentialKind {
    /// All kinds of credential.
    #[cfg(feature = "redis")]
    pub(crate) const ALL: [Self; 5] = [
        Self::User,
        Self::SnapshotUser,
        Self::AccountToken,
        Self::JsapiTicket,
        Self::ComponentToken,
    ];

    /// Returns `true` if credentials of this kind belong to the account, and `false` if they belong
    /// to users.
    pub const fn belongs_to_account(self) -> bool {
        match self {
            Self::AccountToken | Self::JsapiTicket | Self::ComponentToken => true,
            Self::User | Self::SnapshotUser => false,
        }
    }

    /// Returns the name of the kind in keys, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SnapshotUser => "snapshot_user",
            Self::AccountToken => "access_token",
            Self::JsapiTicket => "jsapi_ticket",
            Self::ComponentToken => "component_token",
        }
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::CredentialKind;

    #[test]
    fn every_kind_is_listed_once() {
        for (index, kind) in CredentialKind::ALL.into_iter().enumerate() {
            // This match does not compile without an arm for each kind. A new kind must also be
            // added to `ALL`.
            let expected_index = match kind {
                CredentialKind::User => 0,
                CredentialKind::SnapshotUser => 1,
                CredentialKind::AccountToken => 2,
                CredentialKind::JsapiTicket => 3,
                CredentialKind::ComponentToken => 4,
            };
            assert_eq!(index, expected_index);
        }
    }
}
