//! The reply of the scripts that acquire a lease or write values.

use redis::FromRedisValue;

/// The reply of a script that acquires a lease or writes.
pub(in crate::store::redis) enum ScriptReply {
    /// Another owner holds the lease.
    Busy,
    /// The script has acquired the lease or written the values.
    Applied,
    /// The stored values are not the expected ones. The variant contains the stored values.
    Conflict(Vec<Option<Vec<u8>>>),
    /// The script has written the values, but has not published the message about the write.
    AppliedUnpublished,
}

impl FromRedisValue for ScriptReply {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let mut parts = Vec::<redis::Value>::from_redis_value(value)?.into_iter();
        let code = parts.next().map(i64::from_redis_value).transpose()?;
        match code {
            Some(0) => Ok(Self::Busy),
            Some(1) => Ok(Self::Applied),
            Some(2) => {
                let values = parts.next().map_or(Ok(Vec::new()), Vec::from_redis_value)?;
                Ok(Self::Conflict(values))
            }
            Some(3) => Ok(Self::AppliedUnpublished),
            Some(_) | None => Err("a script returned an unknown code".into()),
        }
    }
}
