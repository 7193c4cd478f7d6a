//! A cache of the Lua scripts that this process has generated.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::script::Script;
use super::steps::{KeyCounts, PublishMode, Step, build_text};

/// Maximum number of cached scripts: 256. A process uses fewer scripts; the limit bounds the memory
/// in any case.
const MAX_CACHED_SCRIPTS: usize = 256;

type ScriptCache = HashMap<(Step, KeyCounts, PublishMode), Arc<Script>>;

/// Returns the Lua script of a step for these numbers of keys, from a cache.
///
/// The lock also covers the generation, so that two tasks do not generate the same script. No task
/// waits for Redis under the lock.
pub(super) fn script(step: Step, counts: KeyCounts, mode: PublishMode) -> Arc<Script> {
    static TEXTS: LazyLock<Mutex<ScriptCache>> = LazyLock::new(Mutex::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(script) = texts.get(&(step, counts, mode)) {
        return Arc::clone(script);
    }
    let script = Arc::new(Script::new(build_text(step, counts, mode)));
    if texts.len() < MAX_CACHED_SCRIPTS {
        texts.insert((step, counts, mode), Arc::clone(&script));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_cached_and_bounded() {
        let counts = |values| KeyCounts {
            values,
            ..KeyCounts::default()
        };
        let [first, second] =
            [(); 2].map(|()| script(Step::Overwrite, counts(1), PublishMode::InScript));
        assert!(Arc::ptr_eq(&first, &second));
        for values in 0..MAX_CACHED_SCRIPTS + 10 {
            script(Step::ReleaseLeases, counts(values), PublishMode::Separately);
        }
        let [first, second] = [(); 2].map(|()| {
            script(
                Step::ReleaseLeases,
                counts(MAX_CACHED_SCRIPTS + 9),
                PublishMode::Separately,
            )
        });
        assert!(!Arc::ptr_eq(&first, &second) && first.text == second.text);
    }
}
