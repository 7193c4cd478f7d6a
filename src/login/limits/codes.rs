//! Limit of the different codes that one login may send.
//!
//! A state is authenticated, and a code is not. A client that has begun a login can send callbacks
//! with any number of invented codes, which only WeChat can recognise. Each login may therefore
//! send only a few codes.

use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;

/// Maximum number of logins whose codes are counted: 10,000. To make a limiter forget the codes of
/// one login, an attacker has to begin about as many other logins.
const MAX_TRACKED_LOGINS: usize = 10_000;

/// Limiter that counts the different codes of each login, and rejects those above a maximum.
pub(in crate::login) struct CodeLimiter {
    used_codes: Cache<u64, Arc<Mutex<Vec<Box<str>>>>>,
    max_codes: usize,
}

impl CodeLimiter {
    /// Creates a limiter that admits `max_codes` different codes of each login.
    pub(in crate::login) fn new(max_codes: usize) -> Self {
        Self {
            used_codes: Cache::new(MAX_TRACKED_LOGINS),
            max_codes,
        }
    }

    /// Returns `true` if a login may use this code. A code that the login has used before is always
    /// admitted, because copies of one callback share one exchange.
    ///
    /// If the cache evicts a login's entry while a thread holds the entry's lock, that thread
    /// counts into the evicted entry. The login's count then starts at zero again. For codes that
    /// are exchanged, the store also counts the codes of the login.
    pub(in crate::login) fn try_admit(&self, login_id: u64, code_hash: &str) -> bool {
        let codes = self.used_codes.get_or_insert_with(&login_id, || {
            Ok::<_, std::convert::Infallible>(Arc::default())
        });
        let Ok(codes) = codes;
        let mut codes = codes.lock().unwrap_or_else(PoisonError::into_inner);
        if codes.iter().any(|used| **used == *code_hash) {
            return true;
        }
        if codes.len() >= self.max_codes {
            return false;
        }
        codes.push(code_hash.into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_may_use_a_few_codes_repeatedly() {
        let limiter = CodeLimiter::new(4);
        let admitted = (0..100).filter(|code| limiter.try_admit(1, &code.to_string()));
        assert_eq!(admitted.count(), 4);
        assert!(
            limiter.try_admit(1, "0") && limiter.try_admit(1, "3") && !limiter.try_admit(1, "4")
        );
        assert!(limiter.try_admit(2, "4"), "logins are counted apart");
    }

    #[test]
    fn code_limit_holds_under_concurrency() {
        let limiter = CodeLimiter::new(4);
        let admitted = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let limiter = &limiter;
                    scope.spawn(move || {
                        let mine = (0..200).map(|code| format!("{thread}-{code}"));
                        mine.filter(|code| limiter.try_admit(7, code)).count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|one| one.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(admitted, 4);
    }
}
