//! How many codes one login may bring.
//!
//! A state is authenticated, a code is not: whoever has begun a login can call back with as many
//! made-up codes as they like, and only WeChat can tell that they are. So each login has a few.

use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;

/// How many logins are remembered; the least active leave first. To have one forgotten, an attacker
/// has to begin as many others.
const CAPACITY: usize = 10_000;

/// The marks of the codes that each login has brought, by its number.
pub(super) struct Codes {
    brought: Cache<u64, Arc<Mutex<Vec<Box<str>>>>>,
    most: usize,
}

impl Codes {
    /// Counts so many different codes of each login.
    pub(super) fn new(most: usize) -> Self {
        Self {
            brought: Cache::new(CAPACITY),
            most,
        }
    }

    /// Whether a login may bring this code. A code that it has brought before is always let in:
    /// copies of one callback share one exchange.
    pub(super) fn admit(&self, login: u64, mark: &str) -> bool {
        let brought = self
            .brought
            .get_or_insert_with(&login, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(brought) = brought;
        let mut brought = brought.lock().unwrap_or_else(PoisonError::into_inner);
        if brought.iter().any(|known| **known == *mark) {
            return true;
        }
        if brought.len() >= self.most {
            return false;
        }
        brought.push(mark.into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_brings_a_few_codes_and_each_of_them_again() {
        let codes = Codes::new(4);
        let admitted = (0..100).filter(|code| codes.admit(1, &code.to_string()));
        assert_eq!(admitted.count(), 4);
        assert!(codes.admit(1, "0") && codes.admit(1, "3") && !codes.admit(1, "4"));
        assert!(codes.admit(2, "4"), "logins are counted apart");
    }

    #[test]
    fn the_bound_holds_however_many_come_at_once() {
        let codes = Codes::new(4);
        let admitted = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let codes = &codes;
                    scope.spawn(move || {
                        let mine = (0..200).map(|code| format!("{thread}-{code}"));
                        mine.filter(|code| codes.admit(7, code)).count()
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
