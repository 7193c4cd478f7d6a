//! Memory for secrets that several handles share. It is overwritten when the last handle is
//! dropped.

use std::ops::Deref;
use std::sync::Arc;

use zeroize::Zeroize;

/// Secret bytes in one allocation, which all clones share. Cloning increments a reference count.
///
/// Dropping the last clone overwrites the memory with zeros, unless two threads drop the last two
/// clones at the same moment.
#[derive(Clone)]
pub(crate) struct SecretBytes(Arc<[u8]>);

impl SecretBytes {
    /// Copies `parts` one after another into one new allocation.
    pub(crate) fn concat(parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut memory: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
        // `get_mut` always succeeds, because no other clone of the new memory exists.
        if let Some(mut free) = Arc::get_mut(&mut memory) {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let (here, rest) = free.split_at_mut(part.len());
                here.copy_from_slice(part);
                free = rest;
            }
        }
        Self(memory)
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    #[inline]
    fn drop(&mut self) {
        // Only the last clone may overwrite the memory. The count is a cheap first test, because
        // most clones are not the last one. `get_mut` checks the count again, with the ordering
        // that makes the reads of other clones happen before the write. If two threads drop the
        // last two clones at the same moment, both may read a count of two. The memory is then not
        // overwritten.
        if Arc::strong_count(&self.0) == 1
            && let Some(memory) = Arc::get_mut(&mut self.0)
        {
            memory.zeroize();
        }
    }
}
